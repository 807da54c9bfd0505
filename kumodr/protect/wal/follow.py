"""Follow the write-ahead logs of one live RocksDB database, read-only, across rotation and unlinking.

The argument that nothing is missed: RocksDB appends to one log at a time, numbers grow, and once a newer log exists
the older one is complete. So: first list the logs, opening each new one (an open descriptor outlives the unlink that
follows a flush), then read every held log to its end in order of number. A log that came and went between two looks
would be missed; the sequence numbers of the batches are contiguous over all logs, so the gap is seen at the next
batch, and a new base is due. A database that was replaced has another IDENTITY.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kumodr.protect.wal.batch import Batch, decode
from kumodr.protect.wal.records import WalReader, WalUnusable

PIECE = 1 << 20
_LOG = re.compile(r"(\d{6,})\.log")


@dataclass(frozen=True)
class Cursor:
    """Where following goes on: the database's identity, the log's number, the offset in it, the next sequence number.

    `sequence` is None only before the first batch after a base was seen.
    """

    identity: str
    log: int
    offset: int
    sequence: int | None


class Follower:
    """Given a database's directory and a cursor, `advance` gives the batches that came since. Close it after use."""

    def __init__(self, directory: Path, cursor: Cursor) -> None:
        self._directory = directory
        self._cursor = cursor
        self._held: dict[int, int] = {}
        self._reader = WalReader(cursor.offset)
        self.bytes_read = 0

    @property
    def cursor(self) -> Cursor:
        """Where a new follower would go on."""
        return self._cursor

    def advance(self) -> Iterator[Batch]:
        """Yield each batch that is now whole, in order. Raise WalUnusable with the reason why a new base is due.

        The cursor moves with each batch: after the last one it stands behind everything that was yielded.
        """
        self._look()
        numbers = sorted(self._held)
        if self._cursor.log not in self._held:
            raise WalUnusable(f"the log {self._cursor.log:06d}.log is gone")
        for number in numbers:
            if number > self._cursor.log:
                self._step_to(number)
            yield from self._read(number)

    def close(self) -> None:
        """Let go of every log."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _look(self) -> None:
        if identity_of_database(self._directory) != self._cursor.identity:
            raise WalUnusable("the database was replaced by another one")
        for name in os.listdir(self._directory):
            match = _LOG.fullmatch(name)
            if match and (number := int(match[1])) >= self._cursor.log and number not in self._held:
                try:
                    self._held[number] = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue

    def _step_to(self, number: int) -> None:
        if self._reader.wanted != self._reader.position:
            raise WalUnusable(f"the log {self._cursor.log:06d}.log ends in the middle of a record")
        os.close(self._held.pop(self._cursor.log))
        self._reader = WalReader()
        self._cursor = Cursor(self._cursor.identity, number, 0, self._cursor.sequence)

    def _read(self, number: int) -> Iterator[Batch]:
        descriptor = self._held[number]
        while piece := os.pread(descriptor, PIECE, self._reader.wanted):
            self.bytes_read += len(piece)
            for record in self._reader.feed(piece):
                batch = decode(record)
                if self._cursor.sequence is not None and batch.sequence != self._cursor.sequence:
                    raise WalUnusable(
                        f"sequence number {batch.sequence} follows {self._cursor.sequence - 1}: a log was missed"
                    )
                self._cursor = Cursor(self._cursor.identity, number, self._reader.position, batch.next)
                yield batch


def identity_of_database(directory: Path) -> str:
    """Given a database's directory, return the text of its IDENTITY. Raise WalUnusable where there is none."""
    try:
        with open(directory / "IDENTITY", "rb") as file:
            return file.read(256).decode("ascii", "replace").strip()
    except OSError as error:
        raise WalUnusable(f"the database has no readable IDENTITY: {error.strerror}") from error
