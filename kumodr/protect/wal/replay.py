"""Apply log records to a dict: per key the value of the last put, or None for a last delete.

A batch of one put or one delete of a 16-byte key, which is what KumoMTA writes, is applied by one look at its first 30
bytes; everything else takes the way over `decode`. A record is applied wholly or not at all.
"""

import struct

from kumodr.protect.wal.batch import DELETION, SINGLE_DELETION, VALUE, decode
from kumodr.protect.wal.records import WalUnusable

_STRAIGHT = struct.Struct("<QIBB16s")
_SHORTEST = _STRAIGHT.size


class Replay:
    """Given the sequence number that must come first (None: any), apply records in order and count what they did."""

    __slots__ = ("deletes", "put_bytes", "puts", "sequence")

    def __init__(self, sequence: int | None) -> None:
        self.sequence = sequence
        self.puts = self.deletes = self.put_bytes = 0

    def apply(self, record: bytes, into: dict[bytes, bytes | None]) -> None:
        """Given the next record, do to `into` what it did to the database. Raise WalUnusable, with nothing done."""
        if len(record) >= _SHORTEST:
            sequence, count, tag, width, key = _STRAIGHT.unpack_from(record)
            if count == 1 and width == 16 and sequence == self.sequence:
                if tag == VALUE:
                    at = _start_of_value(record)
                    if at:
                        value = record[at:]
                        into[key] = value
                        self.puts += 1
                        self.put_bytes += len(value)
                        self.sequence = sequence + 1
                        return
                elif len(record) == _SHORTEST and tag in (DELETION, SINGLE_DELETION):
                    into[key] = None
                    self.deletes += 1
                    self.sequence = sequence + 1
                    return
        self._apply_any(record, into)

    def _apply_any(self, record: bytes, into: dict[bytes, bytes | None]) -> None:
        batch = decode(record)
        reason = self._why_not(batch.sequence)
        if reason is not None:
            raise WalUnusable(reason)
        into.update(batch.entries)
        self.sequence = batch.next
        puts = [len(value) for _, value in batch.entries if value is not None]
        self.puts += len(puts)
        self.deletes += len(batch.entries) - len(puts)
        self.put_bytes += sum(puts)

    def _why_not(self, sequence: int) -> str | None:
        if self.sequence is None or sequence == self.sequence:
            return None
        if sequence > self.sequence:
            return f"{sequence - self.sequence} writes are missing before sequence number {sequence}: a log was missed"
        return f"sequence number {sequence} came again where {self.sequence} was due: the database went back"


def _start_of_value(record: bytes) -> int:
    """Where the value of the only entry begins; 0 where it does not fill the record, or is long enough to take time."""
    size = len(record) - _SHORTEST - 1
    if size < 0x80:
        return _SHORTEST + 1 if size >= 0 and record[_SHORTEST] == size else 0
    size -= 1
    if size >> 14 == 0 and record[_SHORTEST] == (size & 0x7F | 0x80) and record[_SHORTEST + 1] == size >> 7:
        return _SHORTEST + 2
    return 0
