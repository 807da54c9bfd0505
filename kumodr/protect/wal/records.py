"""Records of a RocksDB write-ahead log, decoded from bytes as they grow.

The format is RocksDB's `db/log_format.h`: blocks of 32 KiB; each fragment has a header of 7 bytes (masked CRC-32C of
type and payload, length of the payload, type) and never crosses a block; a record is one FULL fragment or FIRST,
MIDDLE…, LAST. Fewer than 7 bytes at the end of a block are zeros. Types 5 to 8 are those of recycled logs, with a log
number of 4 bytes after the header; KumoMTA does not recycle logs, and a recycled log cannot be followed by growth, so
they are refused by name.
"""

import struct
from collections.abc import Iterator

import google_crc32c

BLOCK = 32768
HEADER = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SET_COMPRESSION = 9
TIMESTAMP_SIZE = 10
_MASK = 0xA282EAD8


class WalUnusable(Exception):
    """The log cannot be followed from here; a new base is due. The text is the reason that is recorded."""


class WalReader:
    """Given a log's bytes in order, piece by piece, yield whole records.

    `position` is the offset of the first byte that is not part of a record already yielded: reading again from
    there, with a new reader started at that offset, yields the next record and none twice. An unfinished tail is
    kept, not judged: the writer may be in the middle of it. A wrong checksum with later bytes behind it is damage.
    """

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self._held = bytearray()
        self._held_at = position

    @property
    def wanted(self) -> int:
        """The offset of the file from which the next piece must come."""
        return self._held_at + len(self._held)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Given the bytes from `wanted` on, yield each record that is now whole. Raise WalUnusable."""
        self._held += piece
        view = memoryview(bytes(self._held))
        at, start = 0, self._held_at
        parts: list[memoryview] = []
        begun = self.position - start
        at = begun
        end = len(view)
        try:
            while True:
                room = BLOCK - (start + at) % BLOCK
                if room < HEADER.size:
                    at += room
                    room = BLOCK
                if at + HEADER.size > end:
                    break
                checksum, length, kind = HEADER.unpack_from(view, at)
                if kind == 0 and length == 0:
                    if checksum == 0 and at + room > end:
                        break
                    raise WalUnusable(f"zeros inside the log at offset {start + at}")
                if HEADER.size + length > room:
                    raise WalUnusable(f"a fragment crosses its block at offset {start + at}")
                after = at + HEADER.size + length
                if after > end:
                    break
                if _masked(google_crc32c.value(bytes(view[at + 6 : after]))) != checksum:
                    raise WalUnusable(f"wrong checksum at offset {start + at}")
                payload = view[at + HEADER.size : after]
                at = after
                if kind == FULL and not parts:
                    self.position = start + at
                    yield bytes(payload)
                elif kind == FIRST and not parts:
                    parts = [payload]
                elif kind in (MIDDLE, LAST) and parts:
                    parts.append(payload)
                    if kind == LAST:
                        record = b"".join(parts)
                        parts = []
                        self.position = start + at
                        yield record
                elif kind == TIMESTAMP_SIZE and not parts:
                    self.position = start + at
                else:
                    raise WalUnusable(_refusal(kind, start + at))
        finally:
            del self._held[: self.position - start]
            self._held_at = self.position


def _masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


def _refusal(kind: int, offset: int) -> str:
    if kind == SET_COMPRESSION:
        return "the log is compressed (wal_compression)"
    if 5 <= kind <= 8:
        return "the log is recycled (recycle_log_file_num)"
    return f"a fragment of type {kind} is out of place before offset {offset}"
