"""Which files a RocksDB MANIFEST says belong to the database.

A MANIFEST is a log (the format of the write-ahead log) of version edits: RocksDB's `db/version_edit.cc`. Only what adds
and removes files is kept. A table that a compaction is still writing is in the directory and in no edit: it must not
be stored. The reading is checked by RocksDB itself: the census opens exactly the files named here, with paranoid
checks, and a file too few makes that fail. Where an edit is of a form unknown here, None says that every file may
belong; a file too many does no harm, for RocksDB removes it.
"""

from dataclasses import dataclass

from kumodr.protect.wal.batch import number_at
from kumodr.protect.wal.records import WalReader, WalUnusable
from kumodr.source import Pinned

_PIECE = 1 << 20
_SAFE_TO_IGNORE = 1 << 13
_TEXT = frozenset((1, 201))
_NUMBER = frozenset((2, 3, 4, 9, 10, 200, 203, 300))
_NOTHING = frozenset((202,))
_LOG_NUMBER, _COMPACT_CURSOR, _DELETED_FILE = 2, 5, 6
_NEW_FILE, _NEW_FILE_2, _NEW_FILE_3, _NEW_FILE_4 = 7, 100, 102, 103
_BLOB_ADDED, _BLOB_GARBAGE = 400, 401
_END_OF_FIELDS_OF_FILE, _END_OF_FIELDS_OF_BLOB = 1, 0


@dataclass(frozen=True)
class LiveFiles:
    """Numbers of the tables and blob files that belong to the database, and of the oldest log that does."""

    tables: frozenset[int]
    blobs: frozenset[int]
    oldest_log: int

    def holds(self, name: str) -> bool:
        """Given `NNNNNN.sst`, `.blob` or `.log`, say whether the database still needs it."""
        number, _, kind = name.partition(".")
        if kind == "log":
            return int(number) >= self.oldest_log
        return int(number) in (self.blobs if kind == "blob" else self.tables)


class _Unknown(Exception):
    """An edit has a form that this reader does not know."""


def live_files(manifest: Pinned, size: int) -> LiveFiles | None:
    """Given a MANIFEST and the size that counts, return what belongs to the database; None where it cannot be told."""
    tables: set[tuple[int, int]] = set()
    blobs: set[int] = set()
    oldest_log = 0
    reader = WalReader()
    try:
        while reader.wanted < size:
            for record in reader.feed(manifest.read(reader.wanted, min(_PIECE, size - reader.wanted))):
                oldest_log = max(oldest_log, _apply(record, tables, blobs))
    except (WalUnusable, _Unknown, IndexError):
        return None
    return LiveFiles(frozenset(number for _, number in tables), frozenset(blobs), oldest_log)


def _apply(edit: bytes, tables: set[tuple[int, int]], blobs: set[int]) -> int:
    """Apply one edit; return the log number that it sets, or 0. Removals come before additions, as in RocksDB."""
    at, log = 0, 0
    added: list[tuple[int, int]] = []
    while at < len(edit):
        tag, at = number_at(edit, at)
        if tag in _NUMBER:
            number, at = number_at(edit, at)
            log = number if tag == _LOG_NUMBER else log
        elif tag in _TEXT or tag & _SAFE_TO_IGNORE:
            at = _skip(edit, at)
        elif tag == _COMPACT_CURSOR:
            _, at = number_at(edit, at)
            at = _skip(edit, at)
        elif tag == _DELETED_FILE:
            level, at = number_at(edit, at)
            number, at = number_at(edit, at)
            tables.discard((level, number))
        elif tag in (_NEW_FILE, _NEW_FILE_2, _NEW_FILE_3, _NEW_FILE_4):
            table, at = _new_file(edit, at, tag)
            added.append(table)
        elif tag == _BLOB_ADDED:
            number, at = _blob(edit, at, numbers=2, texts=2)
            blobs.add(number)
        elif tag == _BLOB_GARBAGE:
            _, at = _blob(edit, at, numbers=2, texts=0)
        elif tag not in _NOTHING:
            raise _Unknown(f"tag {tag}")
    tables.update(added)
    return log


def _new_file(edit: bytes, at: int, tag: int) -> tuple[tuple[int, int], int]:
    level, at = number_at(edit, at)
    number, at = number_at(edit, at)
    if tag == _NEW_FILE_3:
        _, at = number_at(edit, at)
    _, at = number_at(edit, at)
    at = _skip(edit, _skip(edit, at))
    if tag != _NEW_FILE:
        _, at = number_at(edit, at)
        _, at = number_at(edit, at)
    if tag == _NEW_FILE_4:
        at = _fields(edit, at, _END_OF_FIELDS_OF_FILE)
    return (level, number), at


def _blob(edit: bytes, at: int, *, numbers: int, texts: int) -> tuple[int, int]:
    number, at = number_at(edit, at)
    for _ in range(numbers):
        _, at = number_at(edit, at)
    for _ in range(texts):
        at = _skip(edit, at)
    return number, _fields(edit, at, _END_OF_FIELDS_OF_BLOB)


def _fields(edit: bytes, at: int, end: int) -> int:
    while True:
        tag, at = number_at(edit, at)
        if tag == end:
            return at
        at = _skip(edit, at)


def _skip(edit: bytes, at: int) -> int:
    length, at = number_at(edit, at)
    if at + length > len(edit):
        raise IndexError
    return at + length
