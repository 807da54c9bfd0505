"""Put the stream on top of a base that was just fetched, and prove that the result is what the stream says.

The puts are written as they come. What the stream deleted is taken out at the end, in one pass over all keys, because
most of it was never in the base: ten million deletes of nothing would cost more than all the mail. The same pass
compares every value that the stream put last with its checksum, and so knows exactly how many messages must be there.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.recover.choose import StreamChoice
from kumodr.recover.evidence import FinishedIds
from kumodr.recover.halves import Half, RocksHalf, open_half_of_copy
from kumodr.recover.journal import Journal
from kumodr.recover.logpieces import LogPieces
from kumodr.recover.settle import settle_all
from kumodr.source import Progress
from kumodr.vault.keys import Identities
from kumodr.vault.open import Vault
from kumodr.vault.segment import Head
from kumodr.vault.streamread import Reading

_HALVES = ("meta", "data")


@dataclass
class Applied:
    """What was put on top of the base. `counts` are the keys that each half must hold now, by the facts' names."""

    epoch: int
    first: int
    last: int = 0
    head: Head | None = None
    sound: int = 0
    """The last number that a state may end with: not in the middle of a moment."""
    on: tuple[str, ...] = ()
    """The components that it was put on top of."""
    segments: int = 0
    rollups: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    finished: int = 0
    new_logs: int = 0
    grown_logs: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[errors.KumodrError, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """Return what markers and evidence say of it."""
        return {
            "epoch": self.epoch,
            "first": self.first,
            "last": self.last,
            "segments": self.segments,
            "rollups": self.rollups,
            "taken": text_of_time(self.head.taken) if self.head else None,
        }


def replay(
    vault: Vault,
    stream: StreamChoice,
    identities: Identities,
    root: Path,
    progress: Progress,
) -> Applied:
    """Given what to apply and the directory with the fetched `spool`, `logs` or both, apply it.

    The ids that it finishes are written to `evidence` beside them. Where the stream breaks off, the rest is not
    applied: `last`, `sound` and `problems` of the answer say how far it got. Raise ComponentDamaged where the result is
    not what the stream says, and the errors of vault and disk.
    """
    extent = stream.extent
    applied = Applied(extent.epoch, extent.first, last=extent.first - 1, sound=extent.first - 1)
    reading = Reading(vault, stream.listing, extent.first, extent.last, stream.trust, identities)
    done = 0

    def open_half(name: str) -> Half:
        return open_half_of_copy(root / "spool" / name, root / f"{name}.engine")

    with ExitStack() as held:
        halves: dict[str, tuple[Half, Journal]] = {}
        for name in _HALVES if (root / "spool").is_dir() else ():
            journal = Journal(root / f"{name}.journal")
            held.callback(journal.close)
            half = open_half(name)
            halves[name] = (half, journal)
            held.callback(half.close)
            if name == "meta":
                _refuse_other_base(half, stream)
        logs = LogPieces(root / "logs") if (root / "logs").is_dir() else None
        applied.on = (*(["spool"] if halves else []), *(["logs"] if logs is not None else []))
        for segment in reading:
            for name, changes in (("meta", segment.content.meta), ("data", segment.content.data)):
                if name in halves:
                    half, journal = halves[name]
                    half.put(changes.others)
                    journal.note(changes)
            if logs is not None:
                logs.apply(segment.content.logs)
            applied.head, applied.last = segment.head, segment.head.last
            applied.sound = applied.sound if segment.head.partial else segment.head.last
            applied.segments += not segment.head.is_rollup
            applied.rollups += segment.head.is_rollup
            done += segment.head.plain_size
            progress(f"applying the stream up to {segment.head.taken:%H:%M:%S} UTC", done, 0)
        applied.problems = tuple(reading.problems)
        if applied.sound != applied.last:
            return applied
        if logs is not None:
            logs.sync()
            applied.new_logs, applied.grown_logs, applied.notes = logs.new, logs.grown, logs.problems
        if halves:
            with FinishedIds(root) as finished:
                settled = settle_all(halves, open_half, root, finished.add)
            applied.counts = {"messages": settled["meta"].count, "bodies": settled["data"].count}
            applied.finished = settled["meta"].gone
    return applied


def _refuse_other_base(meta: Half, stream: StreamChoice) -> None:
    """Given the fetched metadata, raise ComponentDamaged where it is not as many as were stored.

    Of a LocalDisk half every file was compared already; of a database only its files were, not what it makes of them.
    """
    section = stream.base.section("spool")
    stored = section.facts.get("messages") if section else None
    if isinstance(meta, RocksHalf) and isinstance(stored, int):
        there = sum(1 for _ in meta.entries())
        if there != stored:
            raise errors.ComponentDamaged(f"spool: the base holds {there} messages, but {stored} when it was stored")
