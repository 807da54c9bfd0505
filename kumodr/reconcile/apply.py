"""Do what a plan says, to a restored copy only.

First recipients are taken off, then messages are moved into the quarantine. What is taken away is durable in the
quarantine before the spool lets go of it, so this may be killed at any instant; a new plan with the same terms then
says what is left to do. A message of which only one half is left in the spool, and the whole in the quarantine, is
taken out by that plan for the reason that stands there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kumodr.reconcile.mark import mark_reconciled
from kumodr.reconcile.plan import Plan
from kumodr.reconcile.treatments import TRIMMED_OFF
from kumodr.reconcile.trim import with_recipients
from kumodr.source import Progress
from kumodr.spool.copyrule import refuse_unless_copy
from kumodr.spool.metadata import parse
from kumodr.spool.quarantine import Change, change, each_listed, forget, opened, take_out
from kumodr.spool.writer import Writer


@dataclass(frozen=True)
class Applied:
    """How many messages were moved into the quarantine, and how many had recipients taken off."""

    moved: int
    trimmed: int


def apply(plan: Plan, meta: Path, data: Path, kind: str, progress: Progress) -> Applied:
    """Given a plan of this spool, do it. Raise TargetIsLive unless it is certainly a copy, SpoolDamaged, DiskFull."""
    refuse_unless_copy(meta, data, kind)
    moved = trimmed = 0
    with opened(meta, data, kind) as halves:
        for batch in change(_changes(plan, halves["meta"]), plan.trim_count, meta, halves, progress):
            trimmed += len(batch)
        for batch in take_out(plan.moves(), plan.move_count, meta, halves, progress):
            moved += len(batch)
        _forget_what_stays(plan, meta, halves)
    mark_reconciled(meta, moved=moved, trimmed=trimmed)
    return Applied(moved, trimmed)


def _changes(plan: Plan, half: Writer) -> Iterator[Change]:
    for each in plan.trims():
        stored = half.get(bytes.fromhex(each.id))
        if stored is not None:
            off = [address for address in parse(stored).recipients if address not in each.recipients]
            new = with_recipients(stored, each.recipients)
            yield Change(each.id, TRIMMED_OFF, f"an end in the log for {', '.join(off)}"[:1000], new)


def _forget_what_stays(plan: Plan, meta: Path, halves: dict[str, Writer]) -> None:
    """Take copies out of the quarantine that a killed run left of messages that stay by now: putting one back later,
    when it was sent, would send it twice."""
    staying = set(plan.staying_in_quarantine())
    if staying:
        for each in each_listed(meta):
            if each.replacement is None and each.id in staying:
                forget(each, halves)
