"""Files written below a restored directory, without following links, and made durable together."""

import os
import stat
from pathlib import Path

from kumodr import errors
from kumodr.durable import sync_directory, sync_file, sync_filesystem
from kumodr.spool.writer import own_as

_SYNC_EACH = 2000
"""Up to this many files are synced one by one; more are synced with the whole file system."""


class Written:
    """A directory that is written below. Paths are relative to it and were checked by who gives them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        status = root.stat()
        self._owner = (status.st_uid, status.st_gid)
        self._folders: set[str] = {""}
        self._dirty_files: set[str] = set()
        self._dirty_folders: set[str] = set()
        self._too_many = False

    def replace(self, path: str, data: bytes, mode: int) -> None:
        """Given a path, its content and mode, make or replace the file."""
        descriptor = self.open(path, mode, os.O_TRUNC)
        try:
            write_at(descriptor, data, 0)
        finally:
            os.close(descriptor)

    def open(self, path: str, mode: int, flags: int = 0) -> int:
        """Given a path, return a descriptor to write it by, made where it is not there. Raise ManifestUnsafe."""
        self._folder(path.rpartition("/")[0])
        flags |= os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        place = self._root / path
        try:
            descriptor = os.open(place, flags)
        except FileNotFoundError:
            descriptor = os.open(place, flags | os.O_CREAT | os.O_EXCL, 0o600)
            self._give(descriptor, mode)
        except OSError as error:
            if not place.is_symlink():
                raise
            raise errors.ManifestUnsafe(f"{place} is a link, and the stream would write through it") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise errors.ManifestUnsafe(f"{place} is no file, and the stream would write to it")
        self.changed(path)
        return descriptor

    def changed(self, path: str) -> None:
        """Given a path that was written or removed, remember to make it durable."""
        if self._too_many:
            return
        self._dirty_files.add(path)
        self._dirty_folders.add(path.rpartition("/")[0])
        self._too_many = len(self._dirty_files) > _SYNC_EACH

    def sync(self) -> None:
        """Make everything that was written durable."""
        if self._too_many:
            sync_filesystem(self._root)
        else:
            for path in self._dirty_files:
                if (self._root / path).exists():
                    sync_file(self._root / path)
            for folder in self._dirty_folders:
                sync_directory(self._root / folder)
        self._dirty_files.clear()
        self._dirty_folders.clear()
        self._too_many = False

    def _folder(self, path: str) -> None:
        if path in self._folders:
            return
        above = path.rpartition("/")[0]
        self._folder(above)
        place = self._root / path
        try:
            os.mkdir(place, 0o755)
            own_as(place, *self._owner)
            self._dirty_folders.add(above)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                raise errors.ManifestUnsafe(f"{place} is no directory, and the stream would write below it") from None
        self._folders.add(path)

    def _give(self, descriptor: int, mode: int) -> None:
        os.fchmod(descriptor, mode)
        if os.geteuid() == 0:
            os.fchown(descriptor, *self._owner)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Given a descriptor, bytes and where they go, write all of them."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
