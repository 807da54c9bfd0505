"""A site whose vault ages, for tests of retention."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from streams import Stream
from vaults import START, Bench, capture_of, quiet

from kumodr import errors
from kumodr.plan.model import KeepPlan, RetentionPlan
from kumodr.source import Held, SourceFile
from kumodr.vault.backup import Session, begin_backup
from kumodr.vault.facts import Point, StreamJoin
from kumodr.vault.fetch import fetch
from kumodr.vault.keys import NodeKey
from kumodr.vault.points import Survey, survey
from kumodr.vault.prune import PrunePlan, apply_prune, plan_prune
from kumodr.vault.store import Entry, Piece, Store
from kumodr.vault.stream import listing, trust_of
from kumodr.vault.streamverify import verify_stream
from kumodr.vault.verify import Verification, record_verification, verify_deep, verify_shallow

DAY = timedelta(days=1)


COMPONENTS = ("spool", "logs", "config", "redis")


class Died(Exception):
    """The process ended here."""


@dataclass
class AgedStore:
    """A store whose clock is the test's, and which dies before the call that `dies_in` counts down to."""

    store: Store
    now: datetime = START
    put: dict[str, datetime] = field(default_factory=dict)
    dies_in: int | None = None
    locks: Callable[[str], bool] = lambda _name: False

    @property
    def address(self) -> str:
        return self.store.address

    def _count(self) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                raise Died

    def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
        self._count()
        won = self.store.put_if_absent(name, pieces)
        if won:
            self.put[name] = self.now
        return won

    def delete(self, names: Sequence[str]) -> None:
        refused = {name: "it is locked" for name in names if self.locks(name)}
        for name in names:
            if name not in refused:
                self._count()
                self.store.delete([name])
        if refused:
            raise errors.ObjectsLocked("some are locked", refused)

    def entries(self, prefix: str) -> Iterator[Entry]:
        return (replace(entry, modified=self.put[entry.name]) for entry in self.store.entries(prefix))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@dataclass
class Site:
    """A bench on an aged store, whose clock stands until it is moved."""

    made: Bench
    store: AgedStore
    stream: Stream
    count: int = 0

    def files(self, content: int) -> list[SourceFile]:
        return [SourceFile("file", size=9, content=Held(b"content %d" % (content % 10)), mtime_ns=0)]

    def clock(self) -> datetime:
        return self.store.now

    def begin(self, stack: ExitStack, key: NodeKey | None = None) -> Session:
        key = key or self.made.key
        state = self.made.folder / f"state-{key.node}"
        return stack.enter_context(begin_backup(self.made.vault, key, state, self.clock, quiet))

    def backup(self, contents: dict[str, int], *, joins: bool = False, key: NodeKey | None = None) -> Point:
        with ExitStack() as stack:
            session = self.begin(stack, key)
            for component, content in contents.items():
                session.store(component, capture_of(self.files(content)))
            return session.commit(self.join() if joins else None)

    def join(self) -> StreamJoin:
        return StreamJoin(self.stream.epoch, self.stream.number + 1, self.stream.number + 2)

    def prune(self, policies: RetentionPlan, **words: Any) -> PrunePlan:
        plan = plan_prune(self.made.vault, policies, self.store.now, **words)
        apply_prune(self.made.vault, plan, self.made.key, self.clock)
        return plan

    def look(self) -> Survey:
        """Every point that is shown has every object, and the chain holds."""
        found = survey(self.made.vault, {"primary": frozenset([self.made.key.public])})
        assert found.problems == ()
        for point in found.points:
            assert verify_shallow(self.made.vault, point).problems == ()
            if point.stream is not None and point.section("spool") is not None:
                names = listing(self.made.vault, point.node, point.stream.epoch)
                trust = trust_of(self.made.vault, {})
                assert verify_stream(self.made.vault, names, point.stream.begin, trust, None, quiet).problems == ()
        return found


def keeping(grace: timedelta = DAY, **words: Any) -> RetentionPlan:
    keep = KeepPlan(**words)
    return RetentionPlan(grace.total_seconds(), keep, keep, keep, keep, keep, keep, keep)


LAST_ONE = keeping(last=1)


POLICIES = st.builds(
    KeepPlan,
    within=st.none() | st.sampled_from([3600.0, 86400.0, 5 * 86400.0]),
    last=st.integers(0, 2),
    daily=st.integers(0, 3),
    weekly=st.integers(0, 2),
    monthly=st.integers(0, 1),
    yearly=st.integers(0, 1),
)


RETENTIONS = st.builds(RetentionPlan, st.sampled_from([3600.0, 86400.0, 3 * 86400.0]), *[POLICIES] * 7)


def proved(there: Site) -> dict[str, set[tuple[str, str]]]:
    """Return by component the newest point, and the newest that was proved at the best level there is."""
    found: dict[str, set[tuple[str, str]]] = {}
    levels: dict[str, set[str]] = {}
    for name in there.made.vault.store.list("verified/"):
        text = there.made.vault.store.get(name, 1 << 20).decode()
        level = next(each for each in ("restore", "deep", "shallow") if f'"{each}"' in text)
        levels.setdefault(name.split("/")[1], set()).add(level)
    points = sorted(there.look().points, key=lambda point: point.sequence)
    for component in COMPONENTS:
        have = [point for point in points if point.section(component) is not None]
        if have:
            found.setdefault(component, set()).add((have[-1].id, "newest"))
        for level in ("restore", "deep", "shallow"):
            good = [point for point in have if level in levels.get(point.id, ())]
            if good:
                found[component].add((good[-1].id, level))
                break
    return found


def live(
    there: Site,
    data: st.DataObject,
    steps: st.SearchStrategy[str],
    pauses: st.SearchStrategy[timedelta],
    contents_of: st.SearchStrategy[dict[str, int]],
    retentions: st.SearchStrategy[RetentionPlan],
) -> None:
    """Let things happen in any order; after each, what is shown is whole, and in the end everything comes back."""
    running: ExitStack | None = None
    session: Session | None = None
    for step in data.draw(st.lists(steps, min_size=4, max_size=22)):
        there.store.now += data.draw(pauses)
        contents = data.draw(contents_of)
        if step in ("backup", "base") and running is None:
            there.backup(contents, joins=step == "base" and "spool" in contents)
        elif step == "segments":
            for _ in range(3):
                there.stream.add({bytes(16): b"x"})
            if data.draw(st.booleans()):
                there.stream.roll(there.stream.number - 2, there.stream.number)
        elif step == "epoch":
            there.stream = Stream(there.made, epoch=there.stream.epoch + 1)
            there.stream.add()
        elif step == "begin" and running is None:
            running = ExitStack()
            session = there.begin(running)
            for component, content in contents.items():
                session.store(component, capture_of(there.files(content)))
        elif step in ("commit", "die") and running is not None and session is not None:
            if step == "commit":
                session.commit()
            running.close()
            running = session = None
        elif step == "verify":
            points = there.look().points
            if points:
                point = data.draw(st.sampled_from(points))
                level = data.draw(st.sampled_from(["shallow", "deep", "restore"]))
                record_verification(there.made.vault, point, level, Verification((), {}), there.clock, None)
        elif step.startswith("prune"):
            policies = data.draw(retentions)
            plan = plan_prune(there.made.vault, policies, there.store.now)
            assert plan == plan_prune(there.made.vault, policies, there.store.now)
            stays = proved(there)
            kept = {(each.point, each.component) for each in plan.decisions if each.keeps}
            assert {(point, component) for component, each in stays.items() for point, _ in each} <= kept
            there.store.dies_in = data.draw(st.integers(0, 12)) if step == "prune dies" else None
            salt = data.draw(st.binary(min_size=1, max_size=2)) if step == "prune locked" else b""
            there.store.locks = lambda name, salt=salt: bool(salt) and zlib.crc32(salt + name.encode()) % 3 == 0
            with suppress(Died):
                apply_prune(there.made.vault, plan, there.made.key, there.clock)
            there.store.dies_in = None
            there.store.locks = lambda _name: False
            after = {(point.id, each.component) for point in there.look().points for each in point.sections}
            assert kept <= after
        there.look()
    if running is not None and session is not None:
        session.commit()
        running.close()
    for point in there.look().points:
        assert verify_deep(there.made.vault, point, there.made.identities, quiet).problems == ()
        for section in point.sections:
            back = there.made.folder / f"back-{point.id}-{section.component}"
            assert fetch(there.made.vault, section, there.made.identities, back, quiet).files == 1
