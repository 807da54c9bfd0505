"""One half of a spool snapshot, of kind LocalDisk: its files as they are to be stored.

There is nothing to pin: the directory is walked while it is stored. A message that is there from before the walk until
after it is found; what is accepted or finished meanwhile may be in or not. A small file is read when it is listed, from
one descriptor, because metadata may be replaced at any moment; a large one only if the vault has not got it yet.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.source import Gone, Held, Pinned, SourceFile, identity_of
from kumodr.spool.localdisk import Folder, Foreign, MessageFile, read_message, walk
from kumodr.spool.openfile import open_read_only

READ_AT_ONCE = 1 << 20
_TALLY_ENTRY = ">16sQ"


@dataclass(frozen=True)
class Tally:
    """What was listed: `descriptor` of a file of ids and sizes, and the ids that were gone before they were read."""

    descriptor: int
    gone: set[bytes]


class LocalHalf:
    """A directory of message files as `name` ("meta" or "data") of a spool. Close it after use."""

    kind = "localdisk"
    retries = 0

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory
        self._tally: Tally | None = None
        self._tallies: list[int] = []

    def close(self) -> None:
        """Let go of what was noted while listing."""
        for descriptor in self._tallies:
            os.close(descriptor)
        self._tallies.clear()

    def fingerprint(self) -> bytes:
        """Return what differs as soon as any message does. Directories count too, so that it never comes back."""
        digest = hashlib.sha256()
        for found in walk(self._directory):
            if not isinstance(found, Foreign):
                digest.update(f"{found.path} {identity_of(found.status)}\n".encode())
        return digest.digest()

    @property
    def files(self) -> Iterator[SourceFile]:
        """Walk the directory and yield it, then each message's file after the directories that lead to it.

        Raise SpoolUnreadable.
        """
        import struct

        entry = struct.Struct(_TALLY_ENTRY)
        tally = Tally(self._new_tally(), set())
        yield self._folder("", os.stat(self._directory))
        yield from self._empty_folder("new")
        waiting: list[Folder] = []
        with os.fdopen(os.dup(tally.descriptor), "wb") as noted:
            for found in walk(self._directory):
                if isinstance(found, Folder):
                    waiting = [each for each in waiting if found.path.startswith(f"{each.path}/")] + [found]
                elif isinstance(found, MessageFile) and (file := self._message(found, tally.gone.add)) is not None:
                    yield from (self._folder(each.path, each.status) for each in waiting)
                    waiting.clear()
                    noted.write(entry.pack(found.key, file.size))
                    yield file
        self._tally = tally

    def description(self) -> dict[str, Any]:
        """Return what the examining process needs: what was listed when it was stored, else the directory itself."""
        if self._tally is None:
            return self.reading()
        gone = [key.hex() for key in self._tally.gone]
        return {"kind": "tally", "descriptor": self._tally.descriptor, "gone": gone}

    def reading(self) -> dict[str, Any]:
        """Return what reading it needs: the directory itself."""
        return {"kind": "localdisk", "path": str(self._directory)}

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that the examining process needs: that of what was listed, if it was."""
        return () if self._tally is None else (self._tally.descriptor,)

    def _new_tally(self) -> int:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        self._tallies.append(descriptor)
        return descriptor

    def _empty_folder(self, name: str) -> Iterator[SourceFile]:
        try:
            yield self._folder(name, os.stat(self._directory / name, follow_symlinks=False))
        except FileNotFoundError:
            return

    def _folder(self, path: str, status: os.stat_result) -> SourceFile:
        return SourceFile(
            f"{self.name}/{path}".rstrip("/"),
            kind="directory",
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
        )

    def _message(self, found: MessageFile, gone: Callable[[bytes], None]) -> SourceFile | None:
        status = found.status
        if status.st_size < READ_AT_ONCE:
            message = read_message(self._directory, found.path)
            if message is None:
                return None
            content, status = Held(message[0]), message[1]
            size = len(message[0])
        else:
            content = Large(f"{self._directory}/{found.path}", found.key, status.st_size, gone)
            size = status.st_size
        return SourceFile(
            f"{self.name}/{found.path}",
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=size,
            content=content,
            identity=identity_of(status),
        )


@dataclass(frozen=True)
class Large:
    """Content of a large message's file, opened when it is read; `gone` is told the key of one that ended before."""

    path: str
    key: bytes
    size: int
    gone: Callable[[bytes], None]

    def read(self, offset: int, length: int) -> bytes:
        """Given a range inside the size, return those bytes. Raise Gone, or SpoolChanging where it was replaced."""
        try:
            descriptor = open_read_only(self.path)
        except FileNotFoundError as error:
            self.gone(self.key)
            raise Gone(self.path) from error
        try:
            if os.fstat(descriptor).st_size != self.size:
                raise errors.SpoolChanging(f"{self.path} was replaced while it was read")
            return Pinned(descriptor).read(offset, length)
        finally:
            os.close(descriptor)
