"""What a walk over plain files knows of them, so that a restart needs no new base: ids and stamps, with a journal.

A stamp is what tells two contents under one id apart. In memory this is all that is known; the journal is the same as
it came about, in the node's state directory: 24 bytes for each change, an id and a stamp, private to the owner. A
position is the journal's name and length behind what was said in the stream so far. After a restart

- an entry before the position is what the stream, or its base, has: content is read again only where its stamp changed;
- of an id behind it only that it may have been said counts, whichever way: its content is read again, and where it is
  not in the spool any more, the stream says that it left.

So every id that the vault's state may hold is known, and saying once more that one left, or what it holds, is harmless.
The journal is written before the segment that it is about is offered to the vault, and progress is noted after it; it
need not survive the power, for after a start of the machine it does not count (`LocalSource`). When it has grown to
more than twice what is known, the next one begins with what is known; the one before it is kept meanwhile. Where one
that is needed is gone, or the disk takes no more, a new epoch begins, as after the loss of any progress.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from struct import Struct
from typing import Any

_ENTRY = Struct("=16sq")
_NAME = re.compile(r"known-(\d{1,9})")
_AT_ONCE = _ENTRY.size << 12
_SPARE = 50_000
"""Entries of changes that are always allowed before a journal begins anew."""

UNSURE = 0
"""In place of a stamp: the id may be in the vault's state, and with which content is not known."""
_GONE = -1
"""In place of a stamp, in the journal only; Python's hashes are never this."""


class KnownLost(Exception):
    """What was known cannot be read back. The text is the reason."""


class Known:
    """Given the node's state directory, nothing is known yet. `back` reads what an earlier run knew."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._parts: list[dict[bytes, int]] = [{} for _ in range(256)]
        self._count = 0
        self._generation = 0
        self._descriptor: int | None = None
        self._length = 0
        self._pending = bytearray()
        self._positioned = False
        self._failure: OSError | None = None

    @classmethod
    def back(cls, state: Path, position: Mapping[str, Any]) -> "Known":
        """Given the state directory and a position, return what was known there. Raise KnownLost."""
        found = cls(state)
        generation, length = position.get("journal"), position.get("length")
        if not isinstance(generation, int) or not isinstance(length, int):
            raise KnownLost("the position that was kept cannot be read")
        if generation not in found._generations():
            raise KnownLost("the list of what was known of the spool is gone")
        try:
            for number in (each for each in found._generations() if each >= generation):
                at = 0
                for key, stamp in _entries(found._path(number)):
                    at += _ENTRY.size
                    if number == generation and at <= length:
                        found._set(key, stamp)
                    elif stamp != _GONE:
                        found._set(key, UNSURE)
                if number == generation and at < length:
                    raise KnownLost("the list of what was known of the spool is shorter than it was")
        except OSError as error:
            raise KnownLost(f"the list of what was known of the spool cannot be read: {error.strerror}") from None
        found._generation = max(found._generations())
        found._positioned = True
        return found

    def begin(self, keep_from: int = 1 << 62) -> None:
        """Begin a journal with what is known; those from `keep_from` on are kept beside it."""
        self._close()
        for number in self._generations():
            self._generation = max(self._generation, number)
            if number < keep_from:
                with contextlib.suppress(OSError):
                    self._path(number).unlink()
        self._generation += 1
        self._pending.clear()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor, self._length = os.open(self._path(self._generation), flags, 0o600), 0
        except OSError as error:
            self._failure = error
            return
        self._note(bytes(16), _GONE)  # it says nothing; whether the disk takes it is known before anything rests on it
        for part in self._parts:
            for key, stamp in part.items():
                self._note(key, stamp)
        self._flush()

    def begin_again_where_long(self) -> bool:
        """Between two rounds: begin the next journal where this one is long for what is known; return whether it was.

        The stamps of all that is known are in it then, also of what is not said yet.
        """
        long = self._descriptor is not None and self._length > _ENTRY.size * (2 * self._count + _SPARE)
        if long:
            self.begin(self._generation)
        return long

    def stamp(self, key: bytes) -> int | None:
        """Given an id, return its stamp, None where it is not known."""
        return self._parts[key[0]].get(key)

    def of(self, first: int) -> Mapping[bytes, int]:
        """Given the first byte of ids, return those that are known."""
        return self._parts[first]

    def put(self, key: bytes, stamp: int) -> None:
        """Given an id, note that the stream says, or its base has, what is under this stamp."""
        self._set(key, stamp)
        self._note(key, stamp)

    def unsure(self, key: bytes, stamp: int) -> None:
        """Given an id, note that the stream is about to say it: a restart before `put` reads it again."""
        self._set(key, stamp)
        self._note(key, UNSURE)

    def expect(self, keys: Iterable[bytes]) -> None:
        """Given ids that the vault's state may hold, note that a restart has to decide them too. Raise OSError."""
        for key in keys:
            self._note(key, UNSURE)
        self._flush()
        if self._failure is not None and self._positioned:
            raise self._failure

    def drop(self, key: bytes) -> None:
        """Given an id, note that the stream says that it left."""
        self._set(key, _GONE)
        self._note(key, _GONE)

    def position(self) -> dict[str, Any] | None:
        """Return where `back` goes on; None where the disk never took it.

        Raise KnownLost where it does not any more: an earlier position, which may be the one that was noted, would not
        lead to what comes now, so it must be taken back before that is said.
        """
        self._flush()
        if self._descriptor is not None:
            self._positioned = True
            return {"journal": self._generation, "length": self._length}
        if self._positioned:
            why = self._failure.strerror if self._failure else "it is closed"
            raise KnownLost(f"the list of what is known of the spool cannot be kept: {why}")
        return None

    def close(self) -> None:
        """Let go of the journal's file."""
        self._flush()
        self._close()

    def _set(self, key: bytes, stamp: int) -> None:
        part = self._parts[key[0]]
        before = len(part)
        if stamp == _GONE:
            part.pop(key, None)
        else:
            part[key] = stamp
        self._count += len(part) - before

    def _note(self, key: bytes, stamp: int) -> None:
        if self._descriptor is not None:
            self._pending += _ENTRY.pack(key, stamp)
            if len(self._pending) >= _AT_ONCE:
                self._flush()

    def _flush(self) -> None:
        if self._descriptor is None:
            return
        try:
            while self._pending:
                done = os.write(self._descriptor, self._pending)
                del self._pending[:done]
                self._length += done
        except OSError as error:
            self._failure = error
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _path(self, generation: int) -> Path:
        return self._state / f"known-{generation}"

    def _generations(self) -> list[int]:
        with contextlib.suppress(OSError):
            return sorted(int(match[1]) for name in os.listdir(self._state) if (match := _NAME.fullmatch(name)))
        return []


def _entries(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the whole entries of a journal; one that was cut when its writer died was in no position. Raise OSError."""
    with open(path, "rb") as file:
        while piece := file.read(_AT_ONCE):
            yield from _ENTRY.iter_unpack(piece[: len(piece) - len(piece) % _ENTRY.size])
