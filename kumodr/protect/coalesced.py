"""Several segments of an epoch as one: of each key the last change, of each log its pieces joined."""

from dataclasses import dataclass, field
from datetime import datetime

from kumodr.vault.segment import Content, LogPiece

_KEY = 100
"""Bytes of memory that a key takes beside its value."""


@dataclass
class Coalesced:
    """Segments from number `first` on, whose head calls `previous` the one before it; `begun` is when it was taken.

    `count` is how many segments there are, `size` the bytes of values and logs that stayed of them.
    """

    first: int
    previous: str | None
    begun: datetime
    meta: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    data: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    logs: dict[str, list[LogPiece]] = field(default_factory=dict[str, list[LogPiece]])
    count: int = 0
    size: int = 0

    def add(self, content: Content, count: int = 1) -> None:
        """Take in the content of the next `count` segments: the last operation on a key is what stays of it."""
        for kept, changes in ((self.meta, content.meta), (self.data, content.data)):
            for key, value in changes.items():
                before = kept.get(key)
                self.size += len(value or b"") - len(before or b"")
                kept[key] = value
        for piece in content.logs:
            self.logs.setdefault(piece.path, []).append(piece)
            self.size += len(piece.data)
        self.count += count

    @property
    def memory(self) -> int:
        """About how many bytes of memory it takes."""
        return self.size + _KEY * (len(self.meta) + len(self.data))

    def content(self) -> Content:
        """Return it as the content of one segment."""
        logs = tuple(piece for pieces in self.logs.values() for piece in _joined(pieces))
        return Content(self.meta, self.data, logs)


def _joined(pieces: list[LogPiece]) -> list[LogPiece]:
    """Return the pieces of one log with those that touch made one."""
    found: list[LogPiece] = []
    run: list[LogPiece] = []
    for piece in pieces:
        if run and run[-1].offset + len(run[-1].data) != piece.offset:
            found.append(_one(run))
            run = []
        run.append(piece)
    return [*found, _one(run)]


def _one(run: list[LogPiece]) -> LogPiece:
    last = run[-1]
    return LogPiece(last.path, run[0].offset, b"".join(each.data for each in run), last.mode, last.mtime_ns)
