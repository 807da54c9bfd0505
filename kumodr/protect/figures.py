"""How protection stands, measured from what the vault acknowledged: for the screen, for `status`, for Prometheus.

Kept in memory by the loop, and written every round to `protect-status.json` in the state directory, where
`kumodr status` reads it. `docs/metrics.md` explains each figure.
"""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

_NAME = "protect-status.json"
_MOST_EVENTS = 50


@dataclass(frozen=True)
class Rebase:
    """A new base: when it became due, the kind of cause, and the reason in words."""

    time: str
    cause: str
    reason: str


@dataclass(frozen=True)
class Figures:
    """One moment of the loop. Times are UTC text; bytes are plain counts since the loop was started."""

    site: str
    process: int
    started: str
    time: str
    state: str = "starting"
    """"starting", "waiting for a base", "protected", "behind" (the vault does not take it now), "lost" or "stopped"."""
    trouble: str | None = None
    epoch: int = 0
    acknowledged: int = 0
    """The number of the newest segment that the vault acknowledged."""
    recoverable_until: str | None = None
    """Everything accepted before this time, and not finished, can be recovered from the vault."""
    messages_at_risk: int = 0
    """Messages read but not acknowledged by the vault."""
    bytes_at_risk: int = 0
    """Their bytes, and those of the write-ahead logs that the last round left unread."""
    base: str | None = None
    base_taken: str | None = None
    backlog_bytes: int = 0
    accepted_messages: int = 0
    accepted_bytes: int = 0
    uploaded_bytes: int = 0
    segments: int = 0
    vault_errors: int = 0
    rebases: tuple[Rebase, ...] = ()
    rebase_counts: Mapping[str, int] = field(default_factory=dict[str, int])
    round_seconds: float = 0.0
    """How long the last round took: reading, sealing, and offering it."""
    components: Mapping[str, str] = field(default_factory=dict[str, str])
    """When each other component was last stored."""

    def with_rebase(self, time: str, cause: str, reason: str) -> "Figures":
        """Given why a new base is due, return the figures with that noted."""
        counts = {**self.rebase_counts, cause: self.rebase_counts.get(cause, 0) + 1}
        return replace(self, rebases=(*self.rebases, Rebase(time, cause, reason))[-_MOST_EVENTS:], rebase_counts=counts)


class Board:
    """The newest figures, for whoever asks on whatever thread."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._lock = threading.Lock()

    @property
    def now(self) -> Figures:
        """The newest figures."""
        with self._lock:
            return self._figures

    def update(self, **changes: Any) -> Figures:
        """Given what changed, return the new figures."""
        with self._lock:
            self._figures = replace(self._figures, **changes)
            return self._figures

    def note_rebase(self, time: str, cause: str, reason: str) -> None:
        """Given why a new base is due, note it."""
        with self._lock:
            self._figures = self._figures.with_rebase(time, cause, reason)


def publish(state: Path, figures: Figures) -> None:
    """Given the figures, replace the file that `kumodr status` reads; it need not survive the power. Raise OSError."""
    temporary = state / f".{_NAME}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(asdict(figures)).encode())
    temporary.rename(state / _NAME)


def published(state: Path) -> Figures | None:
    """Given the state directory, return the newest figures of a loop, running or not; None where there are none."""
    try:
        document = json.loads((state / _NAME).read_bytes())
        rebases = tuple(Rebase(**each) for each in document.pop("rebases"))
        return Figures(**document, rebases=rebases)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
