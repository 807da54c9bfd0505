"""What a stream did to one half of a spool, on disk: the last put or delete of each key can be read back by parts.

Changes are noted in the order in which they are applied, in 256 parts by the first byte of the key: each is a range of
keys, in the order in which both kinds of spool are read. Only one part is held at a time when they are read, so memory
is that of a part, whatever the length of the stream; and a value that a later change made void is never written to the
spool. Deletes, of which a busy site has ten for each message that stays, are noted as they come, many at a time.

A part is pieces, one behind the other: kind, count, size and checksum, and then ids that are gone, or sizes, ids and
values of puts, or sizes, key and value of one other change.
"""

import os
import struct
from array import array
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import google_crc32c

from kumodr import errors
from kumodr.vault.packed import DELETED, ID, Changes, PackedChanges, runs

PARTS = 256
_PIECE = struct.Struct("=IIQI")
_SIZES = struct.Struct("=II")
_GONE, _PUTS, _OTHER = range(3)
_BUFFERED = 8 << 20

Place = tuple[int, int]
"""Where the value of a put lies in its part's bytes, and its size."""


def part_of(key: bytes) -> int:
    """Given a key, return the number of its part."""
    return key[0] if key else 0


def range_of(parts: range) -> tuple[bytes, bytes | None]:
    """Given parts, return the first key that may be in them, and the first behind them, None at the end."""
    return bytes([parts[0]]) if parts[0] else b"", bytes([parts[-1] + 1]) if parts[-1] + 1 < PARTS else None


@dataclass(frozen=True)
class Changed:
    """What a stream did last to each key of a part: `puts` say where the value is in `held`, `gone` are the deletes."""

    held: bytes
    puts: Mapping[bytes, Place]
    gone: Set[bytes]

    def value(self, place: Place) -> bytes:
        """Given a place, return the value."""
        at, size = place
        return self.held[at : at + size]


@dataclass(frozen=True)
class Noted:
    """What a journal holds, to be read, also by another process. `places` are by part: offset, length, offset, …."""

    path: Path
    places: Sequence[Sequence[int]]

    def size(self, part: int) -> int:
        """Given a part's number, return its bytes."""
        return sum(self.places[part][1::2])

    def of_part(self, part: int) -> Changed:
        """Given a part's number, return the last change of each of its keys."""
        spans = self.places[part]
        with self.path.open("rb") as file:
            pieces = [os.pread(file.fileno(), spans[each + 1], spans[each]) for each in range(0, len(spans), 2)]
        held = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        del pieces
        puts: dict[bytes, Place] = {}
        gone: set[bytes] = set()
        at = 0
        while at < len(held):
            kind, count, size, checksum = _PIECE.unpack_from(held, at)
            at += _PIECE.size
            if google_crc32c.value(held[at : at + size]) != checksum:
                raise errors.ComponentDamaged("spool: the disk gave back other changes than were noted there")
            if kind == _GONE:
                _delete(struct.unpack_from(f"{ID}s" * count, held, at), puts, gone)
            elif kind == _PUTS:
                sizes = array("I", held[at : at + 4 * count])
                keys = struct.unpack_from(f"{ID}s" * count, held, at + 4 * count)
                starts = accumulate(sizes, initial=at + (4 + ID) * count)
                puts.update(zip(keys, zip(starts, sizes, strict=False), strict=True))
                gone.difference_update(keys)
            else:
                key_size, value_size = _SIZES.unpack_from(held, at)
                value_at = at + _SIZES.size + key_size
                key = held[at + _SIZES.size : value_at]
                if value_size == DELETED:
                    _delete((key,), puts, gone)
                else:
                    puts[key] = value_at, value_size
                    gone.discard(key)
            at += size
        return Changed(held, puts, gone)

    def document(self) -> list[list[int]]:
        """Return it as JSON values, but for the path."""
        return [list(each) for each in self.places]


def noted_of(document: Sequence[Sequence[int]], path: Path) -> Noted:
    """Given what `Noted.document` gave and where the file is, return it."""
    return Noted(path, document)


def _delete(keys: Sequence[bytes], puts: dict[bytes, Place], gone: set[bytes]) -> None:
    for key in puts.keys() & keys if puts else ():
        del puts[key]
    gone.update(keys)


class Journal:
    """The changes of one half, while they are noted. Close it after use."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._path = path
        self._parts: list[list[bytes]] = [[] for _ in range(PARTS)]
        self._places = [array("Q") for _ in range(PARTS)]
        self._at = 0
        self._buffered = 0
        self.count = 0
        """How many changes were noted."""

    def note(self, changes: PackedChanges) -> None:
        """Given changes that go on top of all before, keep them."""
        gone = changes.gone
        for part, at, end in runs(gone[::ID]):
            self._add(part, _GONE, end - at, [gone[at * ID : end * ID]])
        if changes.are_plain:
            self._note_puts(changes)
        else:
            self._note_others(changes.others())
        self.count += changes.count
        if self._buffered > _BUFFERED:
            self._write()

    def _note_puts(self, changes: PackedChanges) -> None:
        keys, values, ends = changes.keys, changes.values, [0, *changes.ends()]
        sizes = array("I", changes.sizes[1::2])
        for part, at, end in runs(keys[::ID]):
            pieces = [sizes[at:end].tobytes(), keys[at * ID : end * ID], bytes(values[ends[at] : ends[end]])]
            self._add(part, _PUTS, end - at, pieces)

    def _note_others(self, changes: Changes) -> None:
        """Keys that are no ids, and puts out of order: neither is made by KumoMTA or by this version."""
        for key, value in changes.items():
            sizes = array("I", (len(key), DELETED if value is None else len(value)))
            self._add(part_of(key), _OTHER, 1, [sizes.tobytes(), key, value or b""])

    def _add(self, part: int, kind: int, count: int, pieces: Sequence[bytes]) -> None:
        size, checksum = 0, 0
        for piece in pieces:
            size += len(piece)
            checksum = google_crc32c.extend(checksum, piece)
        self._parts[part] += (_PIECE.pack(kind, count, size, checksum), *pieces)
        self._buffered += _PIECE.size + size

    def noted(self) -> Noted:
        """Return what was noted so far."""
        self._write()
        return Noted(self._path, self._places)

    def close(self) -> None:
        """Take the file away."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        for number, pieces in enumerate(self._parts):
            if not pieces:
                continue
            data = b"".join(pieces)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            places = self._places[number]
            if places and places[-2] + places[-1] == self._at:
                places[-1] += len(data)
            else:
                places.extend((self._at, len(data)))
            self._at += len(data)
            pieces.clear()
        self._buffered = 0
