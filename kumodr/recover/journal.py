"""What a stream did to one half of a spool, by key, on disk: the last put or delete of each, in bounded memory.

Changes are noted in the order in which they are applied, in 64 parts by the first bits of the key: each is a range of
keys, in the order in which both kinds of spool are read. The last words of one part are held at a time. Deletes, of
which a busy site has a hundred for each message that stays, are never looked at one by one.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from kumodr import errors
from kumodr.spool.identifier import LENGTH
from kumodr.vault.segment import PackedChanges

PARTS = 64
_SHIFT = 2
_PUT = struct.Struct(f"<{LENGTH}sII")
_WORD = struct.Struct(f"{LENGTH}s8s")
GONE = b"\xff" * 8
"""The word for a key whose last change was a delete: this very object. A put's is checksum and size, another object."""

_BUFFERED = 16 << 20
_MOST_ODD = 10_000


def word_of(value: bytes) -> bytes:
    """Given a value, return its word: CRC-32C and size."""
    return struct.pack("<II", google_crc32c.value(value), len(value))


def part_of(key: bytes) -> int:
    """Given an id's bytes, return the number of its part."""
    return key[0] >> _SHIFT


def range_of(parts: range) -> tuple[bytes, bytes | None]:
    """Given parts, return the first key that may be in them, and the first behind them, None at the end."""
    return (
        bytes([parts[0] << _SHIFT]) if parts[0] else b"",
        bytes([(parts[-1] + 1) << _SHIFT]) if parts[-1] + 1 < PARTS else None,
    )


@dataclass(frozen=True)
class Words:
    """What a journal holds, to be read, also by another process. `places` are by part: kind, offset and length.

    `odd` are the words of keys that are no ids (not 16 bytes); KumoMTA makes none.
    """

    path: Path
    places: Sequence[Sequence[Sequence[int]]]
    odd: Mapping[bytes, bytes]

    def of_part(self, part: int) -> dict[bytes, bytes]:
        """Given a part's number, return the last word for each of its keys."""
        found: dict[bytes, bytes] = {}
        with self.path.open("rb") as file:
            for is_gone, offset, length in self.places[part]:
                piece = os.pread(file.fileno(), length, offset)
                if is_gone:
                    found.update(dict.fromkeys(struct.unpack(f"{LENGTH}s" * (length // LENGTH), piece), GONE))
                else:
                    found.update(_pairs(piece))
        return found

    def document(self) -> dict[str, Any]:
        """Return it as JSON values, but for the path."""
        odd = [[key.hex(), None if word is GONE else word.hex()] for key, word in self.odd.items()]
        return {"places": self.places, "odd": odd}


def words_of(document: Mapping[str, Any], path: Path) -> Words:
    """Given what `Words.document` gave and where the file is, return the words."""
    odd = {bytes.fromhex(key): GONE if word is None else bytes.fromhex(word) for key, word in document["odd"]}
    return Words(path, document["places"], odd)


class Journal:
    """The changes of one half, while they are noted. Close it after use."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")
        self._path = path
        self._parts: list[list[tuple[bool, bytes]]] = [[] for _ in range(PARTS)]
        self._places: list[list[tuple[bool, int, int]]] = [[] for _ in range(PARTS)]
        self._at = 0
        self._buffered = 0
        self._odd: dict[bytes, bytes] = {}
        self.size = 0
        """How many changes were noted."""

    def note(self, changes: PackedChanges) -> None:
        """Given changes that go on top of all before, keep their words."""
        gone, at = changes.gone, 0
        ids = range(len(gone) // LENGTH)
        for part in range(PARTS) if gone else ():
            end = LENGTH * bisect_left(ids, part + 1, key=lambda place: gone[place * LENGTH] >> _SHIFT)
            if end > at:
                self._parts[part].append((True, gone[at:end]))
                at = end
        puts: dict[int, bytearray] = {}
        pack, checksum = _PUT.pack, google_crc32c.value
        for key, value in changes.others.items():
            if len(key) != LENGTH:
                self._note_odd(key, value)
            elif value is not None:
                puts.setdefault(key[0] >> _SHIFT, bytearray()).extend(pack(key, checksum(value), len(value)))
        for part, words in puts.items():
            self._parts[part].append((False, bytes(words)))
        self.size += len(ids) + len(changes.others)
        self._buffered += len(gone) + len(changes.others) * _PUT.size
        if self._buffered > _BUFFERED:
            self._write()

    def words(self) -> Words:
        """Return what was noted so far."""
        self._write()
        return Words(self._path, self._places, self._odd)

    def close(self) -> None:
        """Take the file away."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _note_odd(self, key: bytes, value: bytes | None) -> None:
        if len(self._odd) >= _MOST_ODD:
            raise errors.ObjectDamaged("the stream holds more than 10,000 keys that are no ids")
        self._odd[key] = GONE if value is None else word_of(value)

    def _write(self) -> None:
        """Write what is buffered, neighbours of one kind as one piece: fewer pieces are read back."""
        for number, pieces in enumerate(self._parts):
            places = self._places[number]
            for is_gone, piece in pieces:
                self._file.write(piece)
                last = places[-1] if places else None
                if last is not None and last[0] == is_gone and last[1] + last[2] == self._at:
                    places[-1] = (is_gone, last[1], last[2] + len(piece))
                else:
                    places.append((is_gone, self._at, len(piece)))
                self._at += len(piece)
            pieces.clear()
        self._file.flush()
        self._buffered = 0


def _pairs(piece: bytes) -> Mapping[bytes, bytes]:
    return dict(_WORD.iter_unpack(piece))  # pyright: ignore[reportCallIssue, reportArgumentType] — always two fields
