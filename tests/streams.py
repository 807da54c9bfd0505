"""Make bases and streams for tests: segments sealed and put as the loop does, without the loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from vaults import START, Bench, quiet

from kumodr.components.logs import LogsComponent
from kumodr.components.registry import vetter
from kumodr.components.spool import SpoolComponent
from kumodr.plan.model import Components, LogsPlan, Plan, SpoolPlan, VaultPlan
from kumodr.recover.choose import State, choose_state
from kumodr.recover.restore import Recovered, restore
from kumodr.spool.reader import open_spool
from kumodr.vault.backup import begin_backup
from kumodr.vault.facts import Point, StreamJoin
from kumodr.vault.nodes import register
from kumodr.vault.points import survey
from kumodr.vault.segment import Content, Draft, LogPiece, SealedSegment, sealed


@dataclass
class Stream:
    """One epoch of a node's stream in a vault. Segment `number` is taken `number` seconds after `begun`."""

    made: Bench
    epoch: int = 1
    begun: datetime = START
    number: int = 0
    hash: str | None = None
    contents: list[Content] = field(default_factory=list)
    hashes: list[str | None] = field(default_factory=lambda: [None])
    names: list[str] = field(default_factory=list)

    def taken(self, number: int) -> datetime:
        """Return when a segment was taken."""
        return self.begun + timedelta(seconds=number)

    def add(
        self,
        meta: Mapping[bytes, bytes | None] | None = None,
        data: Mapping[bytes, bytes | None] | None = None,
        logs: tuple[LogPiece, ...] = (),
        *,
        partial: bool = False,
        put: bool = True,
    ) -> SealedSegment:
        """Put the next segment."""
        register(self.made.vault, self.made.key)
        self.number += 1
        content = Content(meta or {}, data or {}, logs)
        draft = Draft(self.epoch, self.number, self.number, self.taken(self.number), self.hash, partial)
        segment = sealed(draft, content, self.made.key, self.made.vault.id, self.made.vault.public_keys())
        if put:
            assert self.made.vault.store.put_if_absent(segment.name, segment.pieces)
        self.hash = segment.hash
        self.contents.append(content)
        self.hashes.append(segment.hash)
        self.names.append(segment.name)
        return segment

    def roll(self, first: int, last: int) -> SealedSegment:
        """Put a roll-up of segments that are there."""
        meta: dict[bytes, bytes | None] = {}
        data: dict[bytes, bytes | None] = {}
        logs: list[LogPiece] = []
        for content in self.contents[first - 1 : last]:
            meta.update(content.meta)
            data.update(content.data)
            logs += content.logs
        draft = Draft(self.epoch, first, last, self.taken(last), self.hashes[first - 1], hash=self.hashes[last])
        content = Content(meta, data, tuple(logs))
        segment = sealed(draft, content, self.made.key, self.made.vault.id, self.made.vault.public_keys())
        assert self.made.vault.store.put_if_absent(segment.name, segment.pieces)
        return segment


def base(made: Bench, site: Path, join: StreamJoin | None, taken: datetime = START, *, logs: bool = True) -> Point:
    """Store `site/spool` and `site/logs` as a base that a stream joins."""
    parts = Components(
        spool=SpoolPlan(str(site / "spool" / "meta"), str(site / "spool" / "data")),
        logs=LogsPlan((str(site / "logs"),)),
    )
    plan = Plan(version=1, site="primary", vault=VaultPlan(""), state="", components=parts)
    with begin_backup(made.vault, made.key, made.state, lambda: taken, quiet) as session:
        for component in (SpoolComponent(plan, lambda: taken), LogsComponent(plan, lambda: taken))[: 1 + logs]:
            with component.capture() as capture:
                session.store(component.name, capture)
        return session.commit(join)


def chosen(made: Bench, **words: object) -> State:
    """Choose a state as `kumodr restore` does."""
    identities = made.identities
    return choose_state(made.vault, survey(made.vault, identities.pins).points, identities.pins, **words)  # type: ignore[arg-type]


def brought_back(made: Bench, target: Path, **words: object) -> Recovered:
    """Restore a state as `kumodr restore` does."""
    state = chosen(made, **words)
    vetters = {each.section.component: vetter(each.section.component, lambda: START) for each in state.chosen}
    return restore(made.vault, state, made.identities, target, vetters, clock=lambda: START, progress=quiet)


def content(spool: Path) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Return what both halves of a spool hold."""
    with open_spool(spool / "meta", spool / "data") as opened:
        meta = {bytes.fromhex(key): raw for key, raw in opened.entries()}
        return meta, {bytes.fromhex(key): opened.body(key) for key in opened.body_ids()}
