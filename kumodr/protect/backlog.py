"""Sealed segments that wait on local disk for a vault that is slow or gone: bounded, private, in order.

A segment is in the backlog when its file has its name: written beside, synced, renamed, the directory synced. What is
here is as sealed as in the vault: this host cannot read it either. What cannot be taken away stays counted, so that the
limit holds for what is on the disk, and is tried again.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from kumodr import errors
from kumodr.durable import sync_directory, write_file
from kumodr.vault.segment import Head, body_at, head_of

_NAME = re.compile(r"(\d{8})-(\d{10})\.seg")
_BEING_WRITTEN = re.compile(r"\.\d{8}-\d{10}\.seg\.\d+")


class Backlog:
    """The folder `backlog` of the node's state directory. `load` before anything else, when no other run has it."""

    def __init__(self, state: Path, limit: int) -> None:
        self._folder = state / "backlog"
        self._limit = limit
        self._sizes: dict[tuple[int, int], int] = {}
        self._left: dict[tuple[int, int], int] = {}

    def load(self) -> None:
        """Look at what an earlier run left; what it was writing when it ended goes. Raise DiskFull."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in sorted(self._folder.iterdir()):
                if match := _NAME.fullmatch(path.name):
                    self._sizes[int(match[1]), int(match[2])] = path.stat().st_size
                elif _BEING_WRITTEN.fullmatch(path.name):
                    path.unlink()
        except OSError as error:
            raise errors.DiskFull(f"the backlog {self._folder} cannot be used: {error.strerror}") from error

    @property
    def size(self) -> int:
        """Bytes that wait, and those that should be gone and cannot be taken away."""
        return sum(self._sizes.values()) + sum(self._left.values())

    def numbers(self, epoch: int) -> list[int]:
        """Given an epoch, return the numbers of its segments that wait, ascending."""
        return sorted(number for held, number in self._sizes if held == epoch)

    def why_not(self, size: int) -> str | None:
        """Given a segment's size, return why it may not be added, or None."""
        if self.size + size > self._limit:
            return f"the backlog would pass its limit of {self._limit:,} bytes (protect.backlog)"
        try:
            free = os.statvfs(self._folder)
        except OSError as error:
            return f"{self._folder} cannot be used: {error.strerror}"
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
        size = self._sizes.pop((epoch, number), None)
        if size is None:
            return
        try:
            self._path(epoch, number).unlink(missing_ok=True)
        except OSError:
            self._left[epoch, number] = size

    def clear(self) -> None:
        """Give up everything that waits: a new base takes its place."""
        self._sizes |= self._left
        self._left.clear()
        for epoch, number in list(self._sizes):
            self.remove(epoch, number)
        with contextlib.suppress(OSError):
            sync_directory(self._folder)

    def _path(self, epoch: int, number: int) -> Path:
        return self._folder / f"{epoch:08d}-{number:010d}.seg"


def whole(data: bytes, name: str, vault_id: str) -> Head:
    """Given the bytes of a segment's file and its name in the vault, return its head.

    What is not to the bit what was sealed must not get a number in the vault, where nothing replaces it: the stream
    would be broken there for good. Raise ManifestForged, VaultFormatUnknown, ObjectDamaged.
    """
    head = head_of(data, name, vault_id)
    body = memoryview(data)[body_at(data) :]
    if len(body) != head.sealed_size or hashlib.sha256(body).hexdigest() != head.sealed_sha256:
        raise errors.ObjectDamaged(f"segment {name} is damaged in the backlog")
    return head
