"""What a source of a damaged spool yields."""

from dataclasses import dataclass

DOUBTFUL, FROM_COPY, READABLE, SURELY_FROM_COPY = -2, -1, 0, 1
"""Sequence numbers of what has none. RocksDB's are READABLE or higher; a higher one wins."""

NOTHING = b"\xff" * 17
"""Behind every id: what is unknown behind it concerns none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one source says of one id: under which sequence number, and the value, or None where it was deleted."""

    key: bytes
    sequence: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """What cannot be known, in words, and for which ids: behind `after`, up to `until` (None: from, or to, the end)."""

    text: str
    after: bytes | None = None
    until: bytes | None = None

    def touches(self, key: bytes) -> bool:
        """Say whether this may have held something about an id."""
        behind = self.after is None or key >= self.after
        return behind and (self.until is None or key[: len(self.until)] <= self.until)
