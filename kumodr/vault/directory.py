"""A store in a directory, durable to the last object.

obstore's local store writes without fsync, so that a power cut can leave an object empty under its final name; this
one syncs the bytes before they get the name, and the directory after.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from kumodr import errors
from kumodr.durable import WRITE, sync_directory
from kumodr.vault.store import Entry, Piece

_STAGING = "tmp"
_MOST_AT_ONCE = 512
"""Pieces in one write; the system takes 1024."""


class DirectoryStore:
    """Objects as files below one directory; files are 0600 and directories 0700.

    Where `marker` names an object, the directory is the vault only as long as it has it: what is left of a volume that
    is not mounted any more is an empty directory of the same name, on another disk.

    What root adds to a vault of another user is given to that user: `kumodr verify` by root must not leave folders that
    a loop in a container cannot look into.
    """

    def __init__(self, root: Path, marker: str | None = None) -> None:
        self._root = root
        self._marker = marker

    @property
    def address(self) -> str:
        return str(self._root)

    def make(self) -> None:
        """Make the directory itself, where a new vault begins. Raise StoreReadOnly."""
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise errors.StoreReadOnly(f"the vault directory {self._root} cannot be made: {error.strerror}") from error

    def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
        """See Store. Staged beside, synced, then linked to the name: link() fails where it exists, for all but one."""
        final = self._path(name)
        self._check_present(name)
        staged = self._root / _STAGING / secrets.token_hex(8)
        try:
            self._make_directory(staged.parent)
            self._make_directory(final.parent)
            try:
                _write_synced(staged, pieces, self._owner())
                os.link(staged, final)
                won = True
            except FileExistsError:
                won = False  # the one who won may have failed, or died, before the name was durable
            finally:
                staged.unlink(missing_ok=True)
            sync_directory(final.parent)
        except OSError as error:
            raise self._named(error, name) from error
        return won

    def get(self, name: str, limit: int) -> bytes:
        """See Store."""
        try:
            with open(self._path(name), "rb", buffering=0, opener=_open_regular) as file:
                size = os.fstat(file.fileno()).st_size
                if size > limit:
                    raise errors.ObjectDamaged(f"object {name} has {size} bytes, more than the {limit} it may have")
                data = file.read(size + 1)
                return data if len(data) == size else data + file.read(limit + 1)
        except FileNotFoundError as error:
            raise self._absent(name) from error
        except OSError as error:
            raise self._named(error, name) from error

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        """See Store."""
        try:
            with open(self._path(name), "rb", opener=_open_regular, buffering=0) as file:
                return os.pread(file.fileno(), length, 0), os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise self._absent(name) from error
        except OSError as error:
            raise self._named(error, name) from error

    def size(self, name: str) -> int | None:
        """See Store."""
        try:
            return os.lstat(self._path(name)).st_size
        except (FileNotFoundError, NotADirectoryError):
            self._check_present(name)
            return None
        except OSError as error:
            raise self._named(error, name) from error

    def unconditional(self) -> "DirectoryStore":
        """See Store. Linking to a name that exists fails in every file system that can link."""
        return self

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """See Store."""
        self._check_present(prefix)
        start = self._root / prefix if prefix else self._root
        for folder, _folders, files in os.walk(start, onerror=lambda error: self._not_listed(error, prefix)):
            relative = os.path.relpath(folder, self._root)
            for file in files:
                name = file if relative == "." else f"{relative}/{file}"
                if name > after and not name.startswith(_STAGING + "/"):
                    yield name

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See Store."""
        for name in self.list(prefix):
            try:
                status = os.lstat(self._root / name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._named(error, name) from error
            yield Entry(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def delete(self, names: Sequence[str]) -> None:
        """See Store. The directories are synced at the end: who deletes in steps knows that each step is durable."""
        self._check_present("")
        changed: set[Path] = set()
        refused: dict[str, str] = {}
        for name in names:
            path = self._path(name)
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                if error.errno != errno.EPERM:
                    raise self._named(error, name) from error
                refused[name] = "its file is immutable, or another user's"
                continue
            except OSError as error:
                raise self._named(error, name) from error
            changed.add(path.parent)
        for folder in changed:
            try:
                sync_directory(folder)
            except OSError as error:
                raise self._named(error, str(folder)) from error
        if refused:
            raise errors.ObjectsLocked(
                f"the vault at {self._root} does not delete {min(refused)}: {refused[min(refused)]}", refused
            )

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise errors.ManifestUnsafe(f"{name!r} is no object name")
        return self._root.joinpath(*parts)

    def _make_directory(self, path: Path) -> None:
        """Make a directory below the root, durably; never the root itself: a vanished mount must not be replaced."""
        if path.is_dir():
            return
        if path == self._root:
            raise errors.StoreUnavailable(f"the vault at {self._root} is gone")
        self._make_directory(path.parent)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            return
        if owner := self._owner():
            with contextlib.suppress(PermissionError):
                os.chown(path, *owner, follow_symlinks=False)
        try:
            sync_directory(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                path.rmdir()  # the next call must not find it and take it for durable
            raise

    def _owner(self) -> tuple[int, int] | None:
        """Return whom new files and folders are given to, or None where they are right as they come."""
        if os.geteuid() != 0:
            return None
        status = os.stat(self._root)
        return (status.st_uid, status.st_gid) if status.st_uid else None

    def _check_present(self, name: str) -> None:
        """Given the name that is asked for, raise StoreUnavailable where the directory is not the vault any more."""
        wanted = self._root if self._marker in (None, name) else self._root / str(self._marker)
        if not os.path.exists(wanted):
            raise errors.StoreUnavailable(f"the vault at {self._root} is gone")

    def _not_listed(self, error: OSError, prefix: str) -> None:
        """A directory that cannot be listed must not look empty; one that is not there is."""
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise self._named(error, prefix) from error

    def _absent(self, name: str) -> errors.KumodrError:
        try:
            self._check_present(name)
        except errors.StoreUnavailable as error:
            return error
        return errors.ObjectMissing(f"object {name} is missing from the vault at {self._root}")

    def _named(self, error: OSError, name: str) -> errors.KumodrError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return errors.StoreFull(f"the vault at {self._root} is full")
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return errors.StoreReadOnly(f"the vault at {self._root} refuses {name}: {error.strerror}")
        return errors.StoreUnavailable(f"the vault at {self._root} fails with {name}: {error.strerror}")


def _write_synced(path: Path, pieces: Sequence[Piece], owner: tuple[int, int] | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if owner:
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, *owner)
        for group in _groups(pieces):
            written = os.writev(descriptor, group)
            if written != sum(map(len, group)):
                rest = memoryview(b"".join(group))[written:]
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        # Nobody reads it soon: memory is better left to the mail server whose spool this is a copy of.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _groups(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield the pieces cut and gathered so that each group is at most one write."""
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        for start in range(0, len(piece), WRITE):
            part = piece if len(piece) <= WRITE else memoryview(piece)[start : start + WRITE]
            if size + len(part) > WRITE or len(group) == _MOST_AT_ONCE:
                yield group
                group, size = [], 0
            group.append(part)
            size += len(part)
    if group:
        yield group


def _open_regular(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
