"""Sealed segments that wait on local disk for a vault that is slow or gone: bounded, private, in order.

A segment is in the backlog when its file has its name: written beside, synced, renamed, the directory synced. What is
here is as sealed as in the vault: this host cannot read it either.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from kumodr import errors
from kumodr.durable import sync_directory, write_file

_NAME = re.compile(r"(\d{8})-(\d{10})\.seg")


class Backlog:
    """The folder `backlog` of the node's state directory."""

    def __init__(self, state: Path, limit: int) -> None:
        self._folder = state / "backlog"
        self._limit = limit
        self._sizes: dict[tuple[int, int], int] = {}
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match:
                self._sizes[int(match[1]), int(match[2])] = path.stat().st_size
            else:
                path.unlink()

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(self._sizes.values())

    def numbers(self, epoch: int) -> list[int]:
        """Given an epoch, return the numbers of its segments that wait, ascending."""
        return sorted(number for held, number in self._sizes if held == epoch)

    def why_not(self, size: int) -> str | None:
        """Given a segment's size, return why it may not be added, or None."""
        if self.size + size > self._limit:
            return f"the backlog would pass its limit of {self._limit:,} bytes (protect.backlog)"
        free = os.statvfs(self._folder)
        if free.f_bavail * free.f_frsize < 2 * size + free.f_blocks * free.f_frsize // 20:
            return f"the disk of {self._folder} has less than 5 % left"
        return None

    def add(self, epoch: int, number: int, pieces: Sequence[bytes]) -> None:
        """Given a segment, keep it durably. Raise DiskFull."""
        data = b"".join(pieces)
        try:
            write_file(self._path(epoch, number), data)
        except OSError as error:
            raise errors.DiskFull(f"the backlog {self._folder} cannot be written: {error.strerror}") from error
        self._sizes[epoch, number] = len(data)

    def read(self, epoch: int, number: int) -> bytes:
        """Given a segment that waits, return its bytes. Raise OSError."""
        return self._path(epoch, number).read_bytes()

    def remove(self, epoch: int, number: int) -> None:
        """Given a segment that the vault has, let go of it."""
        if self._sizes.pop((epoch, number), None) is not None:
            self._path(epoch, number).unlink(missing_ok=True)

    def clear(self) -> None:
        """Give up everything that waits: a new base takes its place."""
        for epoch, number in list(self._sizes):
            self.remove(epoch, number)
        sync_directory(self._folder)

    def _path(self, epoch: int, number: int) -> Path:
        return self._folder / f"{epoch:08d}-{number:010d}.seg"
