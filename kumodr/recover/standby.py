"""Keep a directory up to date with the stream as it arrives, so that taking over has only the last seconds to do.

The state lies in `.standby/state-N`, applied in steps that may be repeated: first the changes, durably, then the
progress. Killed anywhere, it goes on from the last progress. Where the stream begins anew, or cannot be followed, the
new base is restored beside and the progress file switches to it in one rename.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock, text_of_time, time_of_text
from kumodr.durable import sync_directory
from kumodr.ledger.evidence import FINISHED_IDS
from kumodr.ledger.evidence import FOLDER as EVIDENCE
from kumodr.recover import standbyfile
from kumodr.recover.choose import STREAMED, State, choose_state
from kumodr.recover.halves import Half, open_half_of_copy
from kumodr.recover.logpieces import LogPieces
from kumodr.recover.restore import fetch_state
from kumodr.recover.standbyfile import FOLDER
from kumodr.recover.standbyfile import Progress as Standing
from kumodr.source import Progress
from kumodr.spool.identifier import LENGTH
from kumodr.vault.fetch import written_to
from kumodr.vault.keys import Identities
from kumodr.vault.open import Vault
from kumodr.vault.points import survey
from kumodr.vault.segment import name_of
from kumodr.vault.stream import Listing, listing, trust_of
from kumodr.vault.streamread import Reading, Segment

FINISHED_LOG = "finished.log"
"""In a state directory: the ids that the stream deleted, in the order of the stream, perhaps twice."""

_LOOK_EVERY = 5.0
"""Seconds without a new segment after which it is asked whether a new base or epoch has begun."""

_MAY_PASS = (
    errors.StoreUnavailable,
    errors.VaultMissing,
    errors.ObjectMissing,
    errors.ObjectDamaged,
    errors.ComponentDamaged,
    errors.ManifestUnsafe,
)
"""What ends no standby that holds a state already: the vault may come back, another base may be good."""


@dataclass(frozen=True)
class Moment:
    """How a standby stands: what is applied, how old that is in seconds, and what is wrong, if anything."""

    standing: Standing
    lag: float
    problem: str | None = None


class Standby:
    """A standby in its directory. Hold `standbyfile.locked` while it is used, and close it."""

    def __init__(
        self,
        vault: Vault,
        identities: Identities,
        target: Path,
        clock: Clock,
        progress: Progress,
        node: str | None = None,
    ) -> None:
        self._vault = vault
        self._identities = identities
        self._target = target
        self._clock = clock
        self._progress = progress
        self._node = node
        self._halves: dict[str, Half] = {}
        self._logs: LogPieces | None = None
        self._points: frozenset[str] = frozenset()
        self.problem: str | None = None
        found = standbyfile.load(target)
        if found is not None and found.vault != vault.id:
            raise errors.UsageWrong(f"{target} is a standby of another vault", remedy="give another --to DIR")
        if found is not None and found.promoting:
            raise errors.UsageWrong(f"{target} is being promoted", remedy="finish that with --promote")
        self.standing: Standing | None = found
        for left in (target / FOLDER).glob("state-*"):
            if found is None or left.name != found.state:
                shutil.rmtree(left)

    @property
    def moment(self) -> Moment | None:
        """How it stands now; None before the first base is there."""
        if self.standing is None:
            return None
        lag = (self._clock() - time_of_text(self.standing.taken)).total_seconds()
        return Moment(self.standing, lag, self.problem)

    def close(self) -> None:
        """Make everything durable and let go of it; what is applied stays, and is whole."""
        opened, self._halves, self._logs = self._halves, {}, None
        for half in opened.values():
            half.finish()

    def follow(self, wait: Callable[[float], bool], every: float) -> Iterator[Moment]:
        """Apply what is there, then what comes, yielding how it stands after each look; `wait` says whether to go on.

        A vault that cannot be reached is a problem that is yielded, and asked again. Raise WrongKey, PointMissing
        where there is nothing to begin with, and the errors of the disk.
        """
        looked = float("-inf")
        since = 0.0
        while True:
            try:
                if since - looked >= _LOOK_EVERY or self.standing is None:
                    self.look()
                    looked = since
                if self.apply_next():
                    looked = since
            except _MAY_PASS as error:
                if self.standing is None:
                    raise
                self.problem = str(error)
            if (moment := self.moment) is not None:
                yield moment
            if not wait(every):
                return
            since += every

    def catch_up(self) -> None:
        """Apply everything that is there now."""
        self.look()
        while self.apply_next():
            pass
        if self.standing is not None and self.standing.dirty:
            # What is applied in part is in the vault, whole; it is not, so it was never begun.
            self._save(replace(self.standing, dirty=False))

    def look(self) -> None:
        """Look for a base, or a stream, that leads further than what is followed, and change to it."""
        standing = self.standing
        names = frozenset(self._vault.store.list("points/"))
        if standing is not None and names == self._points and standing.epoch:
            return
        found = survey(self._vault, self._identities.pins)
        node = self._node or (standing.node if standing else None)
        points = [point for point in found.points if node is None or point.node == node]
        state = choose_state(self._vault, points, self._identities.pins, components=self._components(points))
        self._points = names
        if standing is None or self._leads_further(state, standing):
            self._begin(state)

    def apply_next(self) -> bool:
        """Apply what follows, if it is there; return whether anything was. What is wrong is the problem then."""
        standing = self.standing
        if standing is None or not standing.epoch:
            return False
        following = name_of(standing.node, standing.epoch, standing.applied + 1, standing.applied + 1)
        if self._vault.store.size(following) is None and self.problem is None:
            self.problem = self._why_nothing_follows(standing)
            return False
        names = listing(self._vault, standing.node, standing.epoch) if self.problem else self._single(standing)
        if names.newest <= standing.applied:
            self.problem = None
            return False
        trust = trust_of(self._vault, self._identities.pins)
        begin = standing.applied + 1
        reading = Reading(self._vault, names, begin, names.newest, trust, self._identities, standing.hash)
        moment: list[Segment] = []
        for segment in reading:
            moment.append(segment)
            if not segment.head.partial:
                self._apply(self.standing or standing, moment)
                moment.clear()
        self.problem = str(reading.problems[0]) if reading.problems else None
        return self.standing != standing

    def _single(self, standing: Standing) -> Listing:
        """Names from the next number on, found one by one: nothing is listed while segments come as they should."""
        numbers: set[int] = set()
        following = standing.applied + 1
        while len(numbers) < 64:
            if self._vault.store.size(name_of(standing.node, standing.epoch, following, following)) is None:
                break
            numbers.add(following)
            following += 1
        return Listing(standing.node, standing.epoch, frozenset(numbers), ())

    def _why_nothing_follows(self, standing: Standing) -> str | None:
        """Return the break where later segments are there and the next one is not; asked when nothing came lately."""
        if (self._clock() - time_of_text(standing.written)).total_seconds() < _LOOK_EVERY:
            return None
        names = listing(self._vault, standing.node, standing.epoch)
        missing = name_of(standing.node, standing.epoch, standing.applied + 1, standing.applied + 1)
        if names.newest <= standing.applied or standing.applied + 1 in names.singles:
            return None
        return str(errors.ChainBroken(f"{missing} is missing, and segments up to number {names.newest} follow"))

    def _leads_further(self, state: State, standing: Standing) -> bool:
        if state.stream is None:
            base = next((each.point for each in state.chosen if each.section.component == "spool"), None)
            return base is not None and base.id != standing.base and base.taken > time_of_text(standing.taken)
        extent = state.stream.extent
        if extent.epoch == standing.epoch and (self.problem is None or state.stream.base.id == standing.base):
            return False
        return extent.taken > time_of_text(standing.taken) or not standing.epoch

    def _components(self, points: Sequence[object]) -> tuple[str, ...]:
        held = {section.component for point in points for section in getattr(point, "sections", ())}
        return tuple(name for name in STREAMED if name in held or name == "spool")

    def _begin(self, state: State) -> None:
        """Restore a state beside, and change to it."""
        number = int(self.standing.state.rpartition("-")[2]) + 1 if self.standing else 1
        place = self._target / FOLDER / f"state-{number}"
        with written_to(place):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700)
        fetched, applied, problems = fetch_state(
            self._vault, state, self._identities, place, place / ".work", self._progress
        )
        self.problem = str(problems[0]) if problems else None
        with written_to(place):
            ids = place / EVIDENCE / FINISHED_IDS
            if ids.exists():
                ids.rename(place / FINISHED_LOG)
            sync_directory(place)
            sync_directory(place.parent)
        spool = next(each for each in state.chosen if each.section.component == "spool")
        head = applied.head if applied else None
        on_logs = applied is not None and "logs" in applied.on
        logs = next((each.point.taken for each in state.chosen if each.section.component == "logs"), None)
        taken = head.taken if head else spool.point.taken
        sections = {
            each.section.component: {
                "point": each.point.id,
                "taken": text_of_time(each.point.taken),
                "files": fetched[each.section.component].files,
                "size": fetched[each.section.component].size,
                "links": list(fetched[each.section.component].outside_links),
            }
            for each in state.chosen
        }
        old = self.standing
        self.close()
        self._save(
            Standing(
                vault=self._vault.id,
                node=spool.point.node,
                state=place.name,
                base=spool.point.id,
                epoch=applied.epoch if applied and head else 0,
                first=applied.first if applied and head else 0,
                applied=applied.last if applied and head else 0,
                hash=head.hash if head else None,
                taken=text_of_time(taken),
                logs_taken=text_of_time(taken if on_logs else logs) if logs else None,
                segments=applied.segments if applied else 0,
                rollups=applied.rollups if applied else 0,
                dirty=False,
                promoting=False,
                written="",
                sections=sections,
                notes=list(applied.notes) if applied else [],
            )
        )
        if old is not None:
            shutil.rmtree(self._target / FOLDER / old.state, ignore_errors=True)

    def _apply(self, standing: Standing, moment: Sequence[Segment]) -> None:
        """Apply the segments of one moment, durably, and only then note it."""
        place = self._target / FOLDER / standing.state
        with written_to(place):
            if not self._halves:
                for name in ("meta", "data"):
                    engine = place / f"{name}.engine"
                    self._halves[name] = open_half_of_copy(place / "spool" / name, engine, living=True)
                self._logs = LogPieces(place / "logs") if (place / "logs").is_dir() else None
            self._save(replace(standing, dirty=True))
            for segment in moment:
                content = segment.content
                _append(place / FINISHED_LOG, content.meta.gone)
                self._halves["meta"].apply(content.meta.unpacked())
                self._halves["data"].apply(content.data.unpacked())
                if self._logs is not None:
                    self._logs.apply(content.logs)
            if self._logs is not None:
                self._logs.sync()
        head = moment[-1].head
        rollups = sum(each.head.is_rollup for each in moment)
        gaps = self._logs.problems if self._logs is not None else ()
        self._save(
            replace(
                standing,
                applied=head.last,
                hash=head.hash,
                taken=text_of_time(head.taken),
                logs_taken=text_of_time(head.taken) if self._logs is not None else standing.logs_taken,
                segments=standing.segments + len(moment) - rollups,
                rollups=standing.rollups + rollups,
                notes=list(dict.fromkeys([*standing.notes, *gaps])),
                dirty=False,
            )
        )

    def _save(self, standing: Standing) -> None:
        self.standing = replace(standing, written=text_of_time(self._clock()))
        standbyfile.save(self._target, self.standing)


def _append(path: Path, data: bytes) -> None:
    """Add ids to a log of them, durably. One that was cut by a crash is filled up first, so that ids stay aligned."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if data:
            os.pwrite(descriptor, data, size - size % LENGTH)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def until(standing: Standing) -> tuple[datetime, datetime | None]:
    """Given how a standby stands, return what spool and logs are complete up to."""
    return time_of_text(standing.taken), time_of_text(standing.logs_taken) if standing.logs_taken else None
