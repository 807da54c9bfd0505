"""Put the stream on top of a base that was just fetched, and prove that the result is what the stream says.

First the whole stream is read and noted on disk by ranges of keys (`journal.py`); then what stayed of it is written,
range by range, and read back (`settle.py`). So memory does not grow with the stream, what came and went leaves nothing
in the spool, and the counts that the examination of the whole must find are exact.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.recover.choose import StreamChoice
from kumodr.recover.evidence import FinishedIds
from kumodr.recover.journal import Journal
from kumodr.recover.logpieces import LogPieces
from kumodr.recover.settle import HALVES, Settled, settle
from kumodr.source import Facts, Progress
from kumodr.vault.keys import Identities
from kumodr.vault.memory import give_back_freed_memory
from kumodr.vault.open import Vault
from kumodr.vault.segment import Head
from kumodr.vault.streamread import Reading


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
    with ExitStack() as held:
        journals: dict[str, Journal] = {}
        for name in HALVES if (root / "spool").is_dir() else ():
            journals[name] = Journal(root / f"{name}.journal")
            held.callback(journals[name].close)
        logs = LogPieces(root / "logs") if (root / "logs").is_dir() else None
        applied.on = (*(["spool"] if journals else []), *(["logs"] if logs is not None else []))
        for segment in reading:
            for name, changes in (("meta", segment.content.meta), ("data", segment.content.data)):
                if name in journals:
                    journals[name].note(changes)
            if logs is not None:
                logs.apply(segment.content.logs)
            applied.head, applied.last = segment.head, segment.head.last
            applied.sound = applied.sound if segment.head.partial else segment.head.last
            applied.segments += not segment.head.is_rollup
            applied.rollups += segment.head.is_rollup
            done += segment.head.plain_size
            progress(f"reading the stream up to {segment.head.taken:%H:%M:%S} UTC", done, 0)
        applied.problems = tuple(reading.problems)
        if applied.sound != applied.last:
            return applied
        if logs is not None:
            logs.sync()
            applied.new_logs, applied.grown_logs, applied.notes = logs.new, logs.grown, logs.problems
        if journals:
            give_back_freed_memory()
            progress("putting the stream on top of the base", done, 0)
            section = stream.base.section("spool")
            facts = section.facts if section else {}
            with FinishedIds(root) as finished:
                settled = settle(root, journals, finished, alike=_are_alike(facts))
            _refuse_other_base(facts, settled)
            applied.counts = {"messages": settled.messages, "bodies": settled.bodies}
            applied.finished = settled.finished
    return applied


def _are_alike(facts: Facts) -> bool:
    """Given what was counted when a base was stored, return whether both halves held the same messages."""
    return facts.get("without_body") == 0 and facts.get("without_meta") == 0


def _refuse_other_base(facts: Facts, settled: Settled) -> None:
    """Raise ComponentDamaged where the fetched metadata were not as many as were stored.

    Of a database only the files were compared already, not what it makes of them. Where the bodies are others, vetting
    the whole shows it.
    """
    stored = facts.get("messages")
    if isinstance(stored, int) and settled.base != stored:
        raise errors.ComponentDamaged(f"spool: the base holds {settled.base} messages, but {stored} when it was stored")
