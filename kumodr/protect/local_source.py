"""Follow a LocalDisk spool by walking it: what is new, what was replaced, what is gone.

There is no log of changes: files appear, are replaced, and go, by rename and unlink. A round walks `meta` to its end
and reads the body of each new message after that; a message whose metadata is gone is finished, and its body with it.
So what was acknowledged before the round began, and is not finished, is in the stream after it: its metadata was found
by the walk, and its body, which is removed first, was still there when it was read, or the message was finished
meanwhile. The lag is honest: it is that of the round, however long the walk takes, and a walk may take a bounded share
of one core.

That a message is not found is no proof that it is gone. A volume that is not mounted any more, or a directory put in
the spool's place, shows nothing of it: the halves must be the same directories after the walk as when following
began. And a listing may miss a name that is replaced while it runs (btrfs gives it a new place): what a walk did not
find is asked for by its name before it is called gone.

A source that goes on from a position, after a restart, walks as any other does; only more time passed. What it knows is
what the stream said before (`known.py`). Not where the machine was started again: what was read then may never have
reached its disk.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.protect.known import UNSURE, Known, KnownLost
from kumodr.protect.source import Changed, Piece, SourceLost
from kumodr.protect.wal.database import boot_id
from kumodr.spool.localdisk import MessageFile, path_of, read_message, walk

_SHARE = 0.2
"""Of the time, at most, that is spent on walking."""

_YOUNG_NS = 60_000_000_000
"""Metadata younger than this when a base begins is read again after it: its body may still have been on its way. And a
body that is not this much older than the round before is read again when its metadata was replaced.
"""


class LocalSource:
    """Both halves. Given the node's state directory too, and a position where it goes on from one.

    Raise SourceLost where it cannot.
    """

    def __init__(
        self,
        meta: Path,
        data: Path,
        state: Path,
        position: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meta = meta
        self._data = data
        self._clock = clock
        self._without_body: set[bytes] = set()
        self._expected: set[bytes] = set()
        self._not_before = 0.0
        self._begun_ns = 0
        self._halves: tuple[tuple[int, int], ...] | None = None
        if position is None:
            self._known = Known(state)
            self._known.begin()
            return
        if position.get("boot") != boot_id():
            raise SourceLost("the machine was started again: what was read of the spool may not have reached its disk")
        try:
            self._halves = tuple((int(device), int(inode)) for device, inode in position["halves"])
            self._known = Known.back(state, position)
        except (KnownLost, KeyError, ValueError, TypeError) as error:
            raise SourceLost(str(error)) from None
        self._known.begin(int(position["journal"]))

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

    def position(self) -> Mapping[str, Any] | None:
        """See Source."""
        boot = boot_id()
        try:
            known = self._known.position()
        except KnownLost as error:
            raise SourceLost(str(error)) from None
        if known is None or not boot or self._halves is None:
            return None
        return {**known, "boot": boot, "halves": [list(each) for each in self._halves]}

    def hold(self) -> None:
        """See Source: what comes and goes between two walks was accepted and finished."""

    def expect(self, ids: Iterable[bytes]) -> None:
        """See Source, and `listed.py`."""
        self._expected.update(key for key in ids if self._known.stamp(key) is None)
        self._known.expect(self._expected)

    def behind(self) -> int:
        """See Source."""
        return 0

    def close(self) -> None:
        """See Source."""
        self._known.close()

    def _round(self, limit: int, *, read: bool) -> Iterator[Piece]:
        begun, begun_ns = self._clock(), time.time_ns()
        self._check_halves()
        known, at = self._known, 0
        if known.begin_again_where_long():
            for key in self._without_body:
                known.unsure(key, known.stamp(key) or UNSURE)
        seen: set[bytes] = set()
        missing: set[bytes] = set()
        bodies_due: list[bytes] = []
        fresh: list[bytes] = []
        meta_renewed: list[bytes] = []
        meta: Changed = {}
        size = 0
        try:
            for found in walk(self._meta):
                if not isinstance(found, MessageFile):
                    continue
                while at < found.key[0]:
                    missing |= known.of(at).keys() - seen
                    seen, at = set(), at + 1
                seen.add(found.key)
                self._expected.discard(found.key)
                if found.key in self._without_body:
                    bodies_due.append(found.key)
                status = found.status
                stamp = hash((status.st_ino, status.st_mtime_ns, status.st_size)) or 1
                before = known.stamp(found.key)
                if before == stamp:
                    continue
                if not read:
                    if time.time_ns() - status.st_mtime_ns > _YOUNG_NS:
                        known.put(found.key, stamp)
                    continue
                known.unsure(found.key, stamp)
                message = read_message(self._meta, found.path)
                if message is None:
                    continue
                meta[found.key] = message[0]
                size += len(message[0])
                (meta_renewed if before else fresh).append(found.key)
                if size >= limit:
                    yield Piece(meta, {}, partial=True)
                    meta, size = {}, 0
            data: Changed = {}
            messages = count = 0
            renewed = [key for key in meta_renewed if self._has_young_body(key)]
            for key in (*fresh, *renewed, *bodies_due):
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
        while at < 256:
            missing |= known.of(at).keys() - seen
            seen, at = set(), at + 1
        gone = {key for key in missing | self._expected if self._is_gone(key)}
        self._check_halves()
        self._without_body -= gone
        self._expected.clear()
        for key in gone:
            known.drop(key)
            meta[key] = data[key] = None
        for key in (*fresh, *meta_renewed, *bodies_due):
            stamp = known.stamp(key)
            if stamp and key not in self._without_body:
                known.put(key, stamp)
        self._begun_ns = begun_ns
        self._not_before = self._clock() + (self._clock() - begun) * (1 / _SHARE - 1)
        yield Piece(meta, data, messages=messages, message_bytes=count)

    def _check_halves(self) -> None:
        """Raise SourceLost where a half is not the directory that it was."""
        try:
            found = tuple((each.st_dev, each.st_ino) for each in map(os.stat, (self._meta, self._data)))
        except OSError as error:
            raise SourceLost(f"the spool's directory {error.filename} is gone: {error.strerror}") from None
        if self._halves is not None and found != self._halves:
            raise SourceLost("the spool's directory was replaced by another one")
        self._halves = found

    def _has_young_body(self, key: bytes) -> bool:
        """Whether the body of a message whose metadata was replaced may have been replaced with it (a policy may)."""
        try:
            body = os.stat(self._data / path_of(key), follow_symlinks=False)
        except OSError:
            return True
        return body.st_mtime_ns > self._begun_ns - _YOUNG_NS

    def _is_gone(self, key: bytes) -> bool:
        try:
            os.stat(self._meta / path_of(key), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            raise SourceLost(f"{error.filename} cannot be looked at: {error.strerror}") from None
        return False
