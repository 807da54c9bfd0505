"""Follow the delivery logs: the bytes that each segment grew by, finished or still open.

A segment is only appended to until it loses its write bits (facts §3.2), so its prefix is what a reader would have
seen. Pieces say where they begin, so sending some bytes twice changes nothing: after a restart, a segment whose offset
is not remembered and that was written to since is sent from its beginning. "Since" is a time before which nothing is
left to be sent: a segment that waits for its turn, or cannot be read at the moment, holds it back.
A site may keep many thousand finished segments: a directory is listed again only when it changed, and only segments
that are not finished are looked at.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kumodr.source import Gone, OnDisk
from kumodr.vault.segment import LogPiece

_SLACK_NS = 10_000_000_000
_FRESH_NS = 2_000_000_000
"""A directory that changed this lately is listed again: its time may not tell two changes apart."""

_WRITABLE = 0o222


class LogTail:
    """Every log directory of the plan, from a position on (None: from now on)."""

    def __init__(self, directories: Sequence[str], position: Mapping[str, Any] | None) -> None:
        self._roots = [(Path(each), f"{number}-{Path(each).name}") for number, each in enumerate(directories, 1)]
        self._listed: dict[str, int] = {}
        self._seen: dict[str, set[str]] = {}
        self._open: dict[str, str] = {}
        self._offsets: dict[str, int] = {}
        self._since = 0
        if position is not None:
            self._offsets.update(position["offsets"])
            self._since = position["since"]
        else:
            self._look()
            for path, name in list(self._open.items()):
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    self._note(path, name, status, status.st_size)
                    self._since = max(self._since, status.st_mtime_ns)

    def pieces(self, limit: int) -> Iterator[LogPiece]:
        """Yield what the segments grew by, at most about `limit` bytes; what is left comes with the next call."""
        self._look()
        left, newest, unread = limit, self._since, 1 << 63
        for path, name in sorted(self._open.items()):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                del self._open[path]
                self._offsets.pop(name, None)
                continue
            except OSError:
                unread = 0
                continue
            offset = min(self._offset(name, status), status.st_size)
            finished = not status.st_mode & _WRITABLE
            if offset == status.st_size and not finished:
                newest = max(newest, status.st_mtime_ns)
                continue
            if left <= 0:
                unread = min(unread, status.st_mtime_ns)
                continue
            try:
                data = OnDisk(path).read(offset, min(left, status.st_size - offset))
            except (Gone, OSError):
                unread = min(unread, status.st_mtime_ns)
                continue
            left -= len(data)
            whole = offset + len(data) == status.st_size
            mode = stat.S_IMODE(status.st_mode) & 0o777 | (0 if whole else 0o200)
            yield LogPiece(name, offset, data, mode, status.st_mtime_ns)
            if whole:
                newest = max(newest, status.st_mtime_ns)
                self._note(path, name, status, status.st_size)
            else:
                unread = min(unread, status.st_mtime_ns)
                self._offsets[name] = offset + len(data)
        self._since = max(self._since, min(newest, unread))

    def position(self) -> Mapping[str, Any]:
        """Where a new tail would go on behind the last piece yielded, as JSON values."""
        return {"since": self._since, "offsets": dict(self._offsets)}

    def _look(self) -> None:
        """List the directories that changed; what is new in them is open."""
        for root, prefix in self._roots:
            waiting = [str(root)]
            while waiting:
                folder = waiting.pop()
                waiting += [each for each in self._listed if os.path.dirname(each) == folder]
                try:
                    changed = os.stat(folder).st_mtime_ns
                    if self._listed.get(folder) == changed and time.time_ns() - changed > _FRESH_NS:
                        continue
                    with os.scandir(folder) as listing:
                        entries = [each for each in listing if not each.name.startswith(".")]
                except OSError:
                    continue
                seen, there = self._seen.get(folder, set()), set[str]()
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in self._listed:
                            waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        there.add(entry.name)
                        if entry.name not in seen:
                            self._open[entry.path] = f"{prefix}/{os.path.relpath(entry.path, root)}"
                self._listed[folder], self._seen[folder] = changed, there

    def _offset(self, name: str, status: os.stat_result) -> int:
        known = self._offsets.get(name)
        if known is not None:
            return known
        return status.st_size if status.st_mtime_ns < self._since - _SLACK_NS else 0

    def _note(self, path: str, name: str, status: os.stat_result, offset: int) -> None:
        if status.st_mode & _WRITABLE:
            self._offsets[name] = offset
        else:
            self._offsets.pop(name, None)
            del self._open[path]
