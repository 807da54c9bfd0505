"""How far the stream is, kept in the node's state directory: `protect.json`, written whole and durably.

It says where reading goes on, behind the last segment that is durable: acknowledged by the vault, or in the backlog in
front of which everything is. It is never ahead of that, so a crash repeats at most what came after; and repeating is
harmless, because changes are absolute. Where it is lost, a new epoch begins with a new base.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kumodr.clock import time_of_text
from kumodr.durable import write_file

_NAME = "protect.json"
_SMALLEST_OUTGROWN = 256 << 20


@dataclass(frozen=True)
class BaseFacts:
    """The base that the epoch's segments go on from: its point, when it was taken, the spool's size, `whole`."""

    point: str
    taken: str
    size: int
    whole: int


@dataclass(frozen=True)
class BaseDue:
    """Why a base is due, and where the stream goes on from it."""

    cause: str
    reason: str
    epoch: int
    begin: int


@dataclass(frozen=True)
class Progress:
    """Behind the last durable segment: the next number, the hash before it, the positions of spool and logs."""

    vault: str
    epoch: int
    next: int
    previous: str | None
    spool: Mapping[str, Any] | None
    logs: Mapping[str, Any] | None
    taken: str | None
    base: BaseFacts | None = None
    since_base: int = 0

    def behind(self, after: Mapping[str, Any]) -> "Progress":
        """Given the position behind a segment that is durable now, return this progress moved there."""
        return replace(self, **{name: after[name] for name in ("next", "previous", "spool", "logs", "taken")})

    def why_again(self, now: datetime, every: float) -> tuple[str, str] | None:
        """Given the time and how many seconds a base is good for, return why one is due, as cause and reason."""
        base = self.base
        if base is None:
            return ("first", "the base of this stream was never finished")
        if now - time_of_text(base.taken) >= timedelta(seconds=every):
            return ("age", f"the last base is of {base.taken}")
        if self.since_base > max(base.size, _SMALLEST_OUTGROWN):
            return ("outgrown", f"{self.since_base:,} bytes of stream since a base of {base.size:,} bytes")
        return None


def load_progress(state: Path, vault_id: str) -> Progress | None:
    """Given the state directory and the vault's id, return the progress; None where there is none that can be used."""
    try:
        document = json.loads((state / _NAME).read_bytes())
        base = document.pop("base")
        progress = Progress(**document, base=BaseFacts(**base) if base else None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return progress if progress.vault == vault_id else None


def why_not_kept(state: Path, progress: Progress) -> str | None:
    """Given the progress, keep it; return why it could not be kept, or None.

    Where the disk does not take it, the old one, which would claim a backlog, is forgotten: a new epoch begins with the
    next run.
    """
    try:
        write_file(state / _NAME, json.dumps(asdict(progress)).encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            (state / _NAME).unlink(missing_ok=True)
        return f"progress cannot be kept in {state}: {error.strerror}"
    return None
