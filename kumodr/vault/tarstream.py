"""The entries of the tar stream that a component's content is, so that `tar` alone can restore it."""

import tarfile
from dataclasses import dataclass

from kumodr.source import SourceFile

RECORD = 512
END = bytes(2 * RECORD)
"""What ends a tar stream."""

_TYPES = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}


@dataclass(frozen=True)
class Entry:
    """One file as the index lists it. `mtime_ns` since 1970; `size` in bytes; `target` of a symbolic link."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    target: str


def entry_of(file: SourceFile) -> Entry:
    """Given a file of a capture, return its entry."""
    size = file.size if file.kind == "file" else 0
    return Entry(file.path, file.kind, file.mode & 0o7777, file.uid, file.gid, file.mtime_ns, size, file.target)


def header(entry: Entry) -> bytes:
    """Given an entry, return its tar header: the same bytes for the same entry, always (pax format, whole seconds)."""
    info = tarfile.TarInfo(entry.path + ("/" if entry.kind == "directory" else ""))
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.mtime = entry.mtime_ns // 1_000_000_000
    info.size = entry.size
    info.linkname = entry.target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Given a file's size, return the zeros that fill its last record."""
    return bytes(-size % RECORD)
