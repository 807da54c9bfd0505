"""What a stream did to one half of a spool, by key, on disk: the last put or delete of each, in bounded memory.

Changes are noted in the order in which they are applied, in 256 parts by the first byte of the key: each is a range of
keys, in the order in which both kinds of spool are read. The last words of one part are held at a time.
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path

import google_crc32c

from kumodr import errors
from kumodr.spool.identifier import LENGTH

PARTS = 256
_PUT = struct.Struct(f"<{LENGTH}sII")
_WORD = struct.Struct(f"{LENGTH}s8s")
GONE = b"\xff" * 8
"""The word for a key whose last change was a delete. A put's is checksum and size, and none is of 2^32 - 1 bytes."""

_BUFFERED = 8 << 20
_MOST_ODD = 10_000


def word_of(value: bytes) -> bytes:
    """Given a value, return its word: CRC-32C and size."""
    return struct.pack("<II", google_crc32c.value(value), len(value))


class Journal:
    """The changes of one half. Close it after use."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w+b")
        self._path = path
        self._parts = [bytearray() for _ in range(PARTS)]
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(PARTS)]
        self._buffered = 0
        self.odd: dict[bytes, bytes] = {}
        """The words of keys that are no ids (not 16 bytes); KumoMTA makes none."""

    def note(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Given changes that go on top of all before, keep their words."""
        parts, pack, checksum = self._parts, _PUT.pack, google_crc32c.value
        for key, value in changes.items():
            if len(key) != LENGTH:
                self._note_odd(key, value)
            elif value is None:
                part = parts[key[0]]
                part += key
                part += GONE
            else:
                part = parts[key[0]]
                part += pack(key, checksum(value), len(value))
        self._buffered += len(changes) * _PUT.size
        if self._buffered > _BUFFERED:
            self._write()

    def words(self, part: int) -> dict[bytes, bytes]:
        """Given a part's number, return the last word for each of its keys."""
        self._write()
        found: dict[bytes, bytes] = {}
        for offset, length in self._places[part]:
            self._file.seek(offset)
            found.update(_WORD.iter_unpack(self._file.read(length)))  # pyright: ignore[reportCallIssue, reportArgumentType]
        return found

    def close(self) -> None:
        """Take the file away."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _note_odd(self, key: bytes, value: bytes | None) -> None:
        if len(self.odd) >= _MOST_ODD:
            raise errors.ObjectDamaged("the stream holds more than 10,000 keys that are no ids")
        self.odd[key] = GONE if value is None else word_of(value)

    def _write(self) -> None:
        self._file.seek(0, os.SEEK_END)
        for number, part in enumerate(self._parts):
            if part:
                self._places[number].append((self._file.tell(), len(part)))
                self._file.write(part)
                part.clear()
        self._buffered = 0
