"""Of everything that is known of an id in one half, the newest; on disk: memory does not grow with the spool."""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from kumodr import errors
from kumodr.spool.salvage.entry import Entry

_AT_ONCE = 1000
_CACHE = -65536
"""In SQLite's words: 64 MiB."""

_TABLE = """CREATE TABLE newest (key BLOB PRIMARY KEY, sequence INTEGER NOT NULL, source INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, size INTEGER) WITHOUT ROWID"""
_NOTE = """INSERT INTO newest VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET sequence = excluded.sequence,
    source = excluded.source, ordinal = excluded.ordinal, size = excluded.size
    WHERE excluded.sequence > newest.sequence"""


class Newest:
    """A private database. `size` is the value's, NULL where the newest entry is a deletion. Close it after use."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = {_CACHE}", "temp_store = FILE"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(_TABLE)

    def note(self, source: int, entries: Iterable[tuple[int, Entry]]) -> None:
        """Given a source's number and its entries, each with its place there, keep those that are newer than what is
        known. Raise DiskFull.
        """
        remaining = iter(entries)
        while some := list(islice(remaining, _AT_ONCE)):
            rows = [
                (each.key, each.sequence, source, ordinal, None if each.value is None else len(each.value))
                for ordinal, each in some
            ]
            try:
                self._connection.execute("BEGIN")
                self._connection.executemany(_NOTE, rows)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise errors.DiskFull(f"the scratch database cannot be written: {error}") from error

    def finish(self, keys: Iterable[bytes]) -> None:
        """Given ids that were deleted in the other half, note that their messages are finished."""
        self._connection.execute("BEGIN")
        self._connection.executemany("UPDATE newest SET size = NULL WHERE key = ?", ((key,) for key in keys))
        self._connection.execute("COMMIT")

    def of(self, key: bytes) -> tuple[int, int | None] | None:
        """Given an id, return the sequence number and the size of what is newest; None where nothing is known."""
        return self._connection.execute("SELECT sequence, size FROM newest WHERE key = ?", (key,)).fetchone()

    def chosen(self, source: int) -> Iterator[int]:
        """Given a source's number, yield in ascending order which of its entries are the newest, and values."""
        found = self._connection.execute(
            "SELECT ordinal FROM newest WHERE source = ? AND size IS NOT NULL ORDER BY ordinal", (source,)
        )
        return (ordinal for (ordinal,) in found)

    def ids(self) -> Iterator[bytes]:
        """Yield every id that something is known of."""
        return (key for (key,) in self._connection.execute("SELECT key FROM newest"))

    def present(self) -> Iterator[tuple[bytes, int]]:
        """Yield every id that has a value, in order, and its source."""
        return self._connection.execute("SELECT key, source FROM newest WHERE size IS NOT NULL ORDER BY key")

    def deleted(self) -> Iterator[bytes]:
        """Yield every id whose newest entry is a deletion, in order."""
        return (key for (key,) in self._connection.execute("SELECT key FROM newest WHERE size IS NULL ORDER BY key"))

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
