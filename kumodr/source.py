"""What a component hands to the vault: files, with content that stays readable until it is stored."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total (0 when unknown)."""

Facts = Mapping[str, Any]
"""JSON values only."""


class Gone(Exception):
    """The file ended its life between being listed and being read: the message was finished."""


class Content(Protocol):
    """Bytes of one file, of a size fixed when it was listed."""

    def read(self, offset: int, length: int) -> bytes:
        """Given a range inside the size, return exactly those bytes. Raise Gone, or OSError."""
        ...


@dataclass(frozen=True)
class Held:
    """Content held in memory, for small things."""

    data: bytes

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class Pinned:
    """Content behind an open descriptor, which the owner of the capture closes: it outlives an unlink."""

    descriptor: int

    def read(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length > 0:
            piece = os.pread(self.descriptor, length, offset)
            if not piece:
                raise OSError(
                    f"file is shorter than when it was listed (descriptor {self.descriptor}, offset {offset})"
                )
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True)
class OnDisk:
    """Content of a file that is opened only when read; for files that are written once and may vanish."""

    path: str

    def read(self, offset: int, length: int) -> bytes:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Gone(self.path) from error
        try:
            return Pinned(descriptor).read(offset, length)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class SourceFile:
    """One entry of a capture. `path` is relative, with `/`, inside the component's folder.

    `identity` is what must be unchanged for the content to be unchanged, for example (device, inode,
    size, mtime_ns, ctime_ns); None means "always read it".
    """

    path: str
    kind: Literal["file", "directory", "symlink"] = "file"
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    content: Content = Held(b"")
    identity: tuple[int, ...] | None = None
    target: str = ""


@dataclass(frozen=True)
class CaptureFacts:
    """What a capture learnt: `clear` goes into the signed clear part of the manifest, `sealed` beside the file list."""

    clear: Facts
    sealed: Facts


@dataclass(frozen=True)
class Capture:
    """One component, held still while it is stored.

    `files` is consumed once, in order. `facts` is called after the last file was stored and before the
    point is committed; it waits for validation and raises where the capture is not good.
    `fingerprint` equal to that of the last committed point means that nothing changed: then neither is called
    and what is stored is used again.
    """

    files: Iterable[SourceFile]
    facts: Callable[[], CaptureFacts]
    fingerprint: str | None = None


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """Given a file's status, return what changes whenever its content may have changed."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
