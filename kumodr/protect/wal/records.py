"""Records of a RocksDB log (write-ahead log or MANIFEST), decoded from bytes as they grow.

The format is RocksDB's `db/log_format.h`: blocks of 32 KiB; each fragment has a header of 7 bytes (masked CRC-32C of
type and payload, length of the payload, type) and never crosses a block; a record is one FULL fragment or FIRST,
MIDDLE…, LAST. Fewer than 7 bytes at the end of a block are padding. Types 5 to 8 and 11 are those of recycled logs,
with a log number of 4 bytes after the header; KumoMTA does not recycle logs, and a recycled log cannot be followed by
growth, so they are refused by name.
"""

import os
import struct
from collections.abc import Generator

import google_crc32c

BLOCK = 32768
LARGEST = 256 << 20
HEADER = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SET_COMPRESSION = 9
TIMESTAMP_SIZE = 10
_RECYCLED = (5, 6, 7, 8, 11)
_MASK = 0xA282EAD8
_CRC_OF_TYPE = tuple(google_crc32c.value(bytes((kind,))) for kind in range(256))


class WalUnusable(Exception):
    """The log cannot be followed from here; a new base is due. The text is the reason that is recorded."""


class WalReader:
    """Given a log's bytes in order, piece by piece, yield whole records.

    `position` is the offset of the first byte that is not part of a record already yielded: reading again from
    there, with a new reader started at that offset, yields the next record and none twice. An unfinished tail is
    not judged: the writer may be in the middle of it, or was. That is a fragment that is cut off, or one with a wrong
    checksum, or of zeros, that has nothing or only zeros behind it; with other bytes behind, it is damage. At most
    one fragment is held besides the parts of an unfinished record.
    """

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self._at = position
        self._held = b""
        self._passed = 0
        self._reason = ""
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def wanted(self) -> int:
        """The offset of the file from which the next piece must come."""
        return self._at + len(self._held) + self._passed

    def forget_tail(self) -> None:
        """Let go of an unfinished fragment: `wanted` goes back to where it begins, for it may read otherwise now."""
        self._held = b""
        self._passed = 0

    def feed(self, piece: bytes) -> Generator[bytes, None, None]:
        """Given the bytes from `wanted` on, yield each record that is now whole. Raise WalUnusable.

        A caller that stops early closes the generator; the reader then stands behind the last record that it gave.
        """
        if self._passed:
            self._end(piece, 0, 0, self._reason)
            return
        data = self._held + piece if self._held else piece
        start, at, end = self._at, 0, len(data)
        header, extend, crc_of_type = HEADER.unpack_from, google_crc32c.extend, _CRC_OF_TYPE
        try:
            while True:
                room = BLOCK - (start + at) % BLOCK
                if room < 7:
                    at += room
                    room = BLOCK
                begin = at + 7
                if begin > end:
                    break
                checksum, length, kind = header(data, at)
                after = begin + length
                if length + 7 > room:
                    raise WalUnusable(f"a fragment crosses its block at offset {start + at}")
                if not (checksum or length or kind):
                    self._end(data, at, at, f"zeros inside the log at offset {start + at}")
                    break
                if after > end:
                    break
                payload = data[begin:after]
                crc = extend(crc_of_type[kind], payload)
                if (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF != checksum:
                    self._end(data, at, after, f"wrong checksum at offset {start + at}")
                    break
                if kind == FULL and not self._parts:
                    at = after
                    self.position = start + at
                    yield payload
                elif kind == LAST and self._parts:
                    at = after
                    self.position = start + at
                    yield self._joined(payload)
                else:
                    self._part(kind, payload, start + after)
                    at = after
        finally:
            self._at = start + at
            self._held = b"" if self._passed else data[at:]

    def _part(self, kind: int, payload: bytes, after: int) -> None:
        """Keep a part of a record, or pass over a fragment that says nothing about messages."""
        if kind == (MIDDLE if self._parts else FIRST):
            self._parts.append(payload)
            self._size += len(payload)
            if self._size > LARGEST:
                raise WalUnusable(f"a record is larger than {LARGEST >> 20} MiB")
        elif kind == TIMESTAMP_SIZE and not self._parts:
            self.position = after
        else:
            raise WalUnusable(refusal(kind, after))

    def _joined(self, payload: bytes) -> bytes:
        self._parts.append(payload)
        record = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return record

    def _end(self, data: bytes, at: int, behind: int, reason: str) -> None:
        """Pass over what is there from `at` on, where it is the tail: from `behind` on there are only zeros."""
        if data.count(0, behind) != len(data) - behind:
            raise WalUnusable(reason)
        self._passed += len(data) - at
        self._reason = reason


def last_record(descriptor: int, size: int, least: int = 12) -> tuple[int, bytes] | None:
    """Given a log of `size` bytes, return where its last record begins that can be told, and its first bytes.

    The record itself may be unfinished; its first fragment is whole and holds at least `least` bytes. Read backwards
    by blocks: every block begins with a fragment. None where there is no record. Raise WalUnusable, OSError.
    """
    for block in range((max(size, 1) - 1) // BLOCK * BLOCK, -1, -BLOCK):
        data = os.pread(descriptor, min(BLOCK, size - block), block)
        found: tuple[int, bytes] | None = None
        at = 0
        while at + HEADER.size <= len(data):
            checksum, length, kind = HEADER.unpack_from(data, at)
            after = at + HEADER.size + length
            payload = data[at + HEADER.size : after]
            if after > len(data) or masked(google_crc32c.extend(_CRC_OF_TYPE[kind], payload)) != checksum:
                break
            if kind in (FULL, FIRST):
                found = (block + at, payload) if length >= least else found
            elif kind not in (MIDDLE, LAST, TIMESTAMP_SIZE):
                raise WalUnusable(refusal(kind, block + after))
            at = after
        if found is not None:
            return found
    return None


def masked(checksum: int) -> int:
    """Given a CRC-32C, return it as RocksDB stores it."""
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


def refusal(kind: int, after: int) -> str:
    """Given a fragment's type that cannot be followed, and the offset behind it, return the reason."""
    if kind == SET_COMPRESSION:
        return "the log is compressed (wal_compression)"
    if kind in _RECYCLED:
        return "the log is recycled (recycle_log_file_num)"
    return f"a fragment of type {kind} is out of place before offset {after}"
