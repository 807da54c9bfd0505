"""Cut a component's files into objects: the tar stream in pieces of at most 8 MiB.

A file of 1 MiB or more has objects of its own, so that one that does not change (an SST, a Prometheus block, a
finished log segment) is stored once for all points. Smaller ones are packed; a pack ends where the hash of a path
says so, or when it is full, so that a file that comes or goes changes one pack and not all that follow.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from kumodr.source import Gone, SourceFile
from kumodr.vault.seal import LARGEST_PLAIN
from kumodr.vault.tarstream import END, Entry, entry_of, header, padding

LARGE = 1 << 20
_PACK_FULL = 4 << 20
_PACK_WORTH = 128 << 10
_BORDER = 61


@dataclass(frozen=True)
class Cut:
    """Plain bytes of one object and the files that begin in it, each with the offset of its content.

    `key` and `part` are set for a part of a large file whose content is known by its identity; `last` marks its end.
    """

    plain: bytes
    files: tuple[tuple[Entry, int], ...]


def key_of(file: SourceFile) -> str | None:
    """Given a file, return what stands for its stored form, or None where it must always be read."""
    if file.identity is None or file.size < LARGE or file.kind != "file":
        return None
    return f"{file.path}|{file.mode}|{file.uid}|{file.gid}|{'.'.join(map(str, file.identity))}"


def cut_large(file: SourceFile) -> Iterator[Cut]:
    """Given a large file, yield its objects: header, content, padding, cut at 8 MiB. Raise Gone or OSError."""
    entry = entry_of(file)
    head = header(entry)
    at = 0
    while at < file.size:
        front = head if at == 0 else b""
        content = file.content.read(at, min(LARGEST_PLAIN - len(front), file.size - at))
        first = at == 0
        at += len(content)
        tail = padding(file.size) if at == file.size else b""
        if len(front) + len(content) + len(tail) > LARGEST_PLAIN:
            yield Cut(front + content, ((entry, len(head)),) if first else ())
            yield Cut(tail, ())
        else:
            plain = front + content + tail if front or tail else content
            yield Cut(plain, ((entry, len(head)),) if first else ())


class Packer:
    """Small files, gathered into packs."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._files: list[tuple[Entry, int]] = []

    def add(self, file: SourceFile) -> Cut | None:
        """Given a small file, directory or link, take it in; return a pack where one is full. Raise Gone or OSError."""
        entry = entry_of(file)
        content = file.content.read(0, file.size) if entry.size else b""
        if len(content) != entry.size:
            raise Gone(file.path)
        head = header(entry)
        full = self.take() if self._size + len(head) + len(content) + 2 * len(END) > LARGEST_PLAIN else None
        self._files.append((entry, self._size + len(head)))
        fill = padding(entry.size)
        self._parts += (head, content, fill)
        self._size += len(head) + len(content) + len(fill)
        border = self._size >= _PACK_WORTH and zlib.crc32(entry.path.encode("utf-8", "surrogateescape")) % _BORDER == 0
        return self.take() if full is None and (border or self._size >= _PACK_FULL) else full

    def take(self, end: bytes = b"") -> Cut:
        """Return what was gathered as a pack, with the end of the stream behind it where that is given."""
        cut = Cut(b"".join([*self._parts, end]), tuple(self._files))
        self._parts, self._size, self._files = [], 0, []
        return cut
