"""Follow a LocalDisk spool by walking it: what is new, what was replaced, what is gone.

There is no log of changes: files appear, are replaced, and go, by rename and unlink. A round walks `meta` to its end
and reads the body of each new message after that; a message whose metadata is gone is finished, and its body with it.
So what was acknowledged before the round began, and is not finished, is in the stream after it: its metadata was found
by the walk, and its body, which is removed first, was still there when it was read, or the message was finished
meanwhile. The lag is honest: it is that of the round, however long the walk takes, and a walk may take a bounded share
of one core.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kumodr import errors
from kumodr.protect.source import Changed, Piece, SourceLost
from kumodr.spool.localdisk import MessageFile, path_of, read_message, walk

_SHARE = 0.2
"""Of the time, at most, that is spent on walking."""

_YOUNG_NS = 60_000_000_000
"""Metadata younger than this when a base begins is read again after it: its body may still have been on its way."""


class LocalSource:
    """Both halves. It knows what it has seen only in memory: a new one begins with everything, as a base does."""

    def __init__(self, meta: Path, data: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._meta = meta
        self._data = data
        self._clock = clock
        self._known: dict[bytes, int] = {}
        self._without_body: set[bytes] = set()
        self._not_before = 0.0

    def note_present(self) -> None:
        """Take what is there now for known: it is in the base that is about to be taken. Raise SourceLost."""
        for _ in self._round(1 << 62, read=False):
            continue

    def pieces(self, limit: int) -> Iterator[Piece]:
        """See Source."""
        yield from self._round(limit, read=True)

    def is_due(self) -> bool:
        """Whether the next walk is within its share of the time."""
        return self._clock() >= self._not_before

    def position(self) -> None:
        """See Source."""
        return

    def behind(self) -> int:
        """See Source."""
        return 0

    def close(self) -> None:
        """Nothing is held open."""

    def _round(self, limit: int, *, read: bool) -> Iterator[Piece]:
        begun = self._clock()
        seen: set[bytes] = set()
        fresh: list[bytes] = []
        meta: Changed = {}
        size = 0
        try:
            for found in walk(self._meta):
                if not isinstance(found, MessageFile):
                    continue
                seen.add(found.key)
                status = found.status
                stamp = hash((status.st_ino, status.st_mtime_ns, status.st_size))
                before = self._known.get(found.key)
                if before == stamp:
                    continue
                if not read:
                    if time.time_ns() - status.st_mtime_ns > _YOUNG_NS:
                        self._known[found.key] = stamp
                    continue
                self._known[found.key] = stamp
                message = read_message(self._meta, found.path)
                if message is None:
                    continue
                meta[found.key] = message[0]
                size += len(message[0])
                if before is None:
                    fresh.append(found.key)
                if size >= limit:
                    yield Piece(meta, {}, partial=True)
                    meta, size = {}, 0
            data: Changed = {}
            messages = count = 0
            for key in (*fresh, *(self._without_body & seen)):
                body = read_message(self._data, path_of(key))
                if body is None:
                    self._without_body.add(key)
                    continue
                self._without_body.discard(key)
                data[key] = body[0]
                size += len(body[0])
                messages, count = messages + 1, count + len(body[0])
                if size >= limit:
                    yield Piece(meta, data, partial=True, messages=messages, message_bytes=count)
                    meta, data, size, messages, count = {}, {}, 0, 0, 0
        except errors.SpoolUnreadable as error:
            raise SourceLost(error.what) from None
        gone = self._known.keys() - seen
        self._without_body -= gone
        for key in gone:
            del self._known[key]
            meta[key] = data[key] = None
        self._not_before = self._clock() + (self._clock() - begun) * (1 / _SHARE - 1)
        yield Piece(meta, data, messages=messages, message_bytes=count)
