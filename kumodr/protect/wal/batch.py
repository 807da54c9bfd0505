"""RocksDB write batches: what one log record does to the database.

The format is RocksDB's `db/write_batch.cc`: sequence number (8 bytes, little-endian) of the first entry, count of
entries (4 bytes), then entries of a tag, for families other than the default a number, and keys and values with
varint lengths. KumoMTA uses the default family only, with puts and deletes of 16-byte keys, one in a batch; RocksDB
joins batches of threads that write at the same time.
"""

import struct
from dataclasses import dataclass

from kumodr.protect.wal.records import WalUnusable

HEAD = struct.Struct("<QI")
_ENTRY = struct.Struct("<BB16s")
DELETION, VALUE, MERGE, LOG_DATA, SINGLE_DELETION, NOOP = 0x0, 0x1, 0x2, 0x3, 0x7, 0xD
RANGE_DELETION = 0xF


@dataclass(frozen=True)
class Batch:
    """Entries in order: (key, value) for a put, (key, None) for a delete; `next` is the sequence number after it."""

    sequence: int
    next: int
    entries: tuple[tuple[bytes, bytes | None], ...]


def decode(record: bytes) -> Batch:
    """Given one whole log record, return its batch. Raise WalUnusable where a new base is needed or it is damaged."""
    if len(record) < HEAD.size:
        raise WalUnusable("a write batch is shorter than its head")
    sequence, count = HEAD.unpack_from(record)
    entries: list[tuple[bytes, bytes | None]] = []
    at, end = HEAD.size, len(record)
    try:
        while at < end:
            tag = record[at]
            if tag in (VALUE, DELETION, SINGLE_DELETION):
                if end - at >= _ENTRY.size and record[at + 1] == 16:
                    _, _, key = _ENTRY.unpack_from(record, at)
                    at += _ENTRY.size
                else:
                    key, at = _slice(record, at + 1)
                if tag == VALUE:
                    value, at = _slice(record, at)
                    entries.append((key, value))
                else:
                    entries.append((key, None))
            elif tag == NOOP:
                at += 1
            elif tag == LOG_DATA:
                _, at = _slice(record, at + 1)
            else:
                raise WalUnusable(_refusal(tag))
    except IndexError:
        raise WalUnusable("a write batch ends in the middle of an entry") from None
    if len(entries) != count:
        raise WalUnusable(f"a write batch says {count} entries and has {len(entries)}")
    return Batch(sequence, sequence + count, tuple(entries))


def number_at(record: bytes, at: int) -> tuple[int, int]:
    """Given the offset of a varint, return the number and the offset behind it. Raise WalUnusable, IndexError."""
    number = shift = 0
    while True:
        byte = record[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise WalUnusable("a number in the log is too long")


def _slice(record: bytes, at: int) -> tuple[bytes, int]:
    length, at = number_at(record, at)
    after = at + length
    if after > len(record):
        raise IndexError
    return record[at:after], after


def _refusal(tag: int) -> str:
    if tag in (0xE, RANGE_DELETION):
        return "a range of messages was deleted at once"
    if tag in (MERGE, 0x6):
        return "the log holds a merge"
    if tag in (0x4, 0x5, 0x8, 0x11, 0x17, 0x19):
        return "the log writes to another column family"
    if tag in (0x9, 0xA, 0xB, 0xC, 0x12, 0x13, 0x15):
        return "the log holds a transaction in two phases"
    return f"the log holds an entry of unknown type {tag:#x}"
