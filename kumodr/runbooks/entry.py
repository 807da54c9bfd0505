"""The timeline of a run: one entry for each part of a step that ended."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phase = Literal["run", "skip", "check", "confirm", "begin", "act", "proof", "undo", "decision"]
Status = Literal["begun", "skipped", "already", "open", "done", "failed", "yes", "again", "skip", "ended", "aborted"]


@dataclass(frozen=True)
class Entry:
    """What ended when and how, and who decided it.

    `number` counts the entries of a run from 1 and is the same when the run is gone through again. `began` is UTC
    text, `seconds` how long it took. `by` is the person (`user@host`) or the option; `session` is when the command
    began that did it, so that a resumed run shows by whom.
    """

    number: int
    step: str
    phase: Phase
    attempt: int
    status: Status
    text: str
    began: str
    seconds: float
    by: str
    session: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    warnings: tuple[str, ...] = ()
    over_budget: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "warnings": list(self.warnings)}


def entry_of(document: Mapping[str, Any]) -> Entry:
    """Given what `Entry.document` returned, return the entry. Raise TypeError, KeyError where it is none."""
    fields: dict[str, Any] = {**document, "warnings": tuple(document["warnings"])}
    return Entry(**fields)
