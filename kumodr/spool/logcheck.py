"""Check write-ahead logs of RocksDB for damage that RocksDB would pass over in silence.

RocksDB replays the newest log up to the first thing that it cannot read and calls the rest lost, without an error.
The format: blocks of 32 KiB, each a row of fragments with a head of 7 bytes (masked CRC-32C of type and payload,
length, type). A record begins in a fragment of type FULL or FIRST, and its payload with the number of its first entry
and the count of its entries. Numbers are contiguous over all logs.
"""

import struct
from collections.abc import Callable

import google_crc32c

_BLOCK = 32768
_HEAD = struct.Struct("<IHB")
_BATCH = struct.Struct("<QI")
_FULL, _FIRST = 1, 2
_CONTINUED = (3, 4)
_RECYCLED = range(5, 9)
_COMPRESSED = 9
_MASK = 0xA282EAD8


class LogCheck:
    """Given the pieces of the logs in order, `problems` names what is damaged.

    A tail that ends in the middle of a record, or in zeros, is how a live log or one after a power failure looks: no
    damage. Logs that the database no longer needs are passed over.
    """

    def __init__(self, needed: Callable[[str], bool]) -> None:
        self.problems: list[str] = []
        self._needed = needed
        self._name = ""
        self._held = b""
        self._offset = 0
        self._given_up = False
        self._numbered = True
        self._torn: str | None = None
        self._next: int | None = None
        self._begun: bytes | None = None

    def seen(self, name: str, piece: bytes) -> None:
        """Given a log's name and its next bytes, check them. Names come in ascending order."""
        if not name.endswith(".log") or not self._needed(name):
            return
        if name != self._name:
            self._finish()
            self._name, self._held, self._offset, self._given_up = name, b"", 0, False
        data = self._held + piece
        whole = len(data) - len(data) % _BLOCK
        for start in range(0, whole, _BLOCK):
            self._block(data[start : start + _BLOCK])
        self._held = data[whole:]

    def finish(self) -> tuple[str, ...]:
        """After the last piece, return every problem."""
        self._finish()
        return tuple(self.problems)

    def _finish(self) -> None:
        if self._held:
            self._block(self._held)
            self._held = b""
        self._torn = None

    def _block(self, block: bytes) -> None:
        """Check one block, or the unfinished last one. A bad fragment is damage once something stands behind it."""
        base, self._offset = self._offset, self._offset + len(block)
        if self._torn is not None:
            self._report_torn(block)
        if self._given_up or self._torn is not None:
            return
        at, end = 0, len(block)
        while at + _HEAD.size <= end:
            checksum, length, kind = _HEAD.unpack_from(block, at)
            after = at + _HEAD.size + length
            if kind == 0 and length == 0 and checksum == 0:
                self._torn = f"{self._name}: zeros inside, at byte {base + at}"
                self._report_torn(block[at:])
                return
            if kind in _RECYCLED:
                self._given_up = True
                self._numbered = False
                return
            if after > end:
                if end == _BLOCK:
                    self._torn = f"{self._name}: broken at byte {base + at}"
                return
            if _masked(google_crc32c.value(block[at + 6 : after])) != checksum:
                self._torn = f"{self._name}: wrong checksum at byte {base + at}"
                self._report_torn(block[after:])
                return
            payload = block[at + _HEAD.size : min(after, at + _HEAD.size + _BATCH.size)]
            if kind in (_FULL, _FIRST):
                self._count(payload)
            elif kind in _CONTINUED and self._begun is not None:
                self._count(self._begun + payload)
            elif kind == _COMPRESSED:
                self._numbered = False
            at = after

    def _report_torn(self, behind: bytes) -> None:
        if self._torn is not None and not self._given_up and behind.strip(b"\0"):
            self.problems.append(self._torn)
            self._given_up = True
            self._numbered = False

    def _count(self, payload: bytes) -> None:
        self._begun = payload if len(payload) < _BATCH.size else None
        if not self._numbered or self._begun is not None:
            return
        sequence, count = _BATCH.unpack_from(payload)
        if self._next is not None and sequence > self._next:
            self.problems.append(f"{self._name}: {sequence - self._next} writes are missing before it")
        self._next = max(self._next or 0, sequence + count)


def _masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF
