"""File operations and store calls that fail at the N-th, once or for good."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.vault.store import Entry, Piece, Store

BY_PATH = (
    "stat", "lstat", "open", "mkdir", "rmdir", "link", "rename", "unlink", "listdir", "scandir", "statvfs",
)  # fmt: skip


BY_DESCRIPTOR = ("fstat", "pread", "read", "write", "writev", "pwrite", "fsync", "ftruncate")


FILLS_THE_DISK = ("mkdir", "link", "rename", "write", "writev", "pwrite", "open to write")


class Faults:
    """Counts operations, and lets the N-th fail: only that one, or it and all that follow until `healed`."""

    def __init__(self) -> None:
        self.count = 0
        self.number = 0
        self.forever = False
        self.armed = False
        self.failed: list[str] = []
        self.folder = "/nowhere"

    def begin(self, folder: Path | str, number: int = 0, *, forever: bool = False) -> None:
        self.count, self.number, self.forever, self.failed = 0, number, forever, []
        self.folder = str(folder)

    def heal(self) -> None:
        self.number = 0

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """The loop's thread is in kumodr's code."""
        self.armed = True
        try:
            yield
        finally:
            self.armed = False

    def meet(self, what: str, where: str = "") -> None:
        """Count an operation; raise where it shall fail."""
        if self.fails():
            self.failed.append(f"{what} {where}")
            code = errno.ENOSPC if what in FILLS_THE_DISK else errno.EIO
            raise OSError(code, os.strerror(code), where)

    def fails(self) -> bool:
        me = threading.current_thread()
        if me is threading.main_thread() and not self.armed:
            return False
        if me is not threading.main_thread() and me.name.startswith(("kumodr-stream", "kumodr-points")):
            return False  # the test's own reading
        self.count += 1
        return self.number != 0 and (self.count >= self.number if self.forever else self.count == self.number)

    def is_ours(self, where: object, directory: int | None = None) -> str | None:
        if isinstance(where, int):
            return self.is_ours(os.readlink(f"/proc/self/fd/{where}"))
        text = os.fsdecode(where) if isinstance(where, str | bytes | os.PathLike) else ""
        if directory is not None:
            text = f"{os.readlink(f'/proc/self/fd/{directory}')}/{text}"
        return text if text.startswith(self.folder + "/") else None


class Written:
    """A file that is written through Python's buffer."""

    def __init__(self, file: Any, faults: Faults, where: str) -> None:
        self._file, self._faults, self._where = file, faults, where

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._faults.meet("write", self._where)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class FailingStore:
    """A store whose N-th call fails, before or after it was done; `faults.count` counts calls."""

    def __init__(self, store: Store, faults: Faults, *, after: bool) -> None:
        self._store, self._faults, self._after = store, faults, after

    @property
    def address(self) -> str:
        return self._store.address

    def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
        return self._call(lambda: self._store.put_if_absent(name, pieces))

    def get(self, name: str, limit: int) -> bytes:
        return self._call(lambda: self._store.get(name, limit))

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        return self._call(lambda: self._store.start(name, length))

    def size(self, name: str) -> int | None:
        return self._call(lambda: self._store.size(name))

    def unconditional(self) -> Store:
        return self

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return self._call(lambda: self._store.list(prefix, after))

    def entries(self, prefix: str) -> Iterator[Entry]:
        return self._call(lambda: self._store.entries(prefix))

    def delete(self, names: Sequence[str]) -> None:
        self._call(lambda: self._store.delete(names))

    def _call(self, call: Callable[[], Any]) -> Any:
        fails = self._faults.fails()
        if fails:
            self._faults.failed.append("store")
        if fails and not self._after:
            raise errors.StoreUnavailable("the connection broke")
        answer = call()
        if fails:
            raise errors.StoreUnavailable("the answer was lost")
        return answer


class Numbers:
    """The numbers of the operations that shall fail, until it is clear that there are no more.

    How many operations a play has differs a little from one time to the next: threads look again after pauses. So no
    count that was taken before says where the end is: where a play was over before its number came, often in a row.
    """

    _MISSES = 10

    def __init__(self, at_least: int) -> None:
        self._at_least = at_least
        self._misses = 0

    def __iter__(self) -> Iterator[int]:
        number = 0
        while self._misses < self._MISSES:
            number += 1
            self._misses += 1
            yield number
        assert number - self._misses >= self._at_least, f"after operation {number - self._misses} none came"

    def came(self) -> None:
        """The last number's operation was there, and failed."""
        self._misses = 0
