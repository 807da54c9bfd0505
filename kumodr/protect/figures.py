"""How protection stands, measured from what the vault acknowledged: for the screen, for `status`, for Prometheus.

Kept in memory by the loop, and written every round to `protect-status.json` in the state directory, where
`kumodr status` reads it. `docs/metrics.md` explains each figure.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from kumodr.clock import time_of_text

CAUSES = ("first", "restart", "spool", "backlog", "state lost", "another writer", "age", "outgrown")
"""The kinds of causes of new bases. `docs/metrics.md` explains each."""

_NAME = "protect-status.json"
_MOST_EVENTS = 50
_SILENT = 10.0
"""Seconds without a round after which the loop counts as not running, or five rounds if that is more."""


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
    messages_at_risk: int | None = None
    """Messages read but not acknowledged by the vault; None where nobody can tell: without a base that carries the
    stream, what the vault acknowledged is at risk too."""
    bytes_at_risk: int | None = None
    """Their bytes, and those of the write-ahead logs that the last round left unread; None as above."""
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
    """When each component was last stored as part of a point."""
    vault: str = ""
    """The id of the vault that all this is about."""
    every: float = 1.0
    """Seconds from one round to the next."""
    place: str = ""
    """What `process` is a number of: as `place_of_processes` returns it."""

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

    def count(self, uploaded: int, segments: Sequence[Mapping[str, int]], vault_errors: int) -> None:
        """Given how many more bytes the vault has, the facts of its new segments, and all errors so far, count them."""
        now = self.now
        self.update(
            uploaded_bytes=now.uploaded_bytes + uploaded,
            segments=now.segments + len(segments),
            accepted_messages=now.accepted_messages + sum(each["messages"] for each in segments),
            accepted_bytes=now.accepted_bytes + sum(each["bytes"] for each in segments),
            vault_errors=vault_errors,
        )

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


def why_not_running(figures: Figures, now: datetime) -> str | None:
    """Given a loop's newest figures, return why it counts as not running, or None."""
    if figures.state == "stopped":
        return "`kumodr protect` was stopped"
    if figures.place and figures.place == place_of_processes() and _is_gone(figures.process):
        return "`kumodr protect` was killed"
    if (now - time_of_text(figures.time)).total_seconds() > max(_SILENT, 5 * figures.every):
        return "`kumodr protect` does not run, or hangs"
    return None


def place_of_processes() -> str:
    """Return what numbers of processes belong to: the boot of this machine, and the namespace. Empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_gone(process: int) -> bool:
    """Whether there is no such process, or only what is left of it until its parent asks how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (OSError, IndexError):
        return True


def why_unread(state: Path) -> str | None:
    """Given the state directory, return why figures that may be there cannot be read, or None."""
    try:
        (state / _NAME).open("rb").close()
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror
    return None


def published(state: Path, vault_id: str | None = None) -> Figures | None:
    """Given the state directory, return the newest figures of a loop, running or not; None where there are none.

    With the id of a vault, those about another one do not count.
    """
    try:
        document = json.loads((state / _NAME).read_bytes())
        rebases = tuple(Rebase(**each) for each in document.pop("rebases"))
        figures = Figures(**document, rebases=rebases)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return figures if vault_id in (None, figures.vault) else None
