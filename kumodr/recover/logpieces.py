"""Continue the restored delivery logs with what the stream says they grew by."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kumodr.recover.written import Written, write_at
from kumodr.vault.fetch import check_paths
from kumodr.vault.segment import LogPiece
from kumodr.vault.tarstream import Entry


class LogPieces:
    """The restored folder `logs`. A piece that does not begin where the file ends, or before, is left out and named."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written = Written(root)
        self._checked: set[str] = set()
        self._gaps: dict[str, str] = {}
        self.new = 0
        """Files that the base had not."""
        self.grown = 0
        """Bytes that were added."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is missing, one sentence for each file."""
        return tuple(self._gaps.values())

    def apply(self, pieces: Iterable[LogPiece]) -> None:
        """Given pieces in the order of the stream, write each at its offset. Doing it again changes nothing.

        Raise ManifestUnsafe for a path that is absolute, climbs, or leads through a link.
        """
        for piece in pieces:
            if piece.path not in self._checked:
                check_paths([Entry(piece.path, "file", piece.mode, 0, 0, 0, 0, "")])
                self._checked.add(piece.path)
            if piece.path not in self._gaps:
                self._apply(piece)

    def sync(self) -> None:
        """Make what was written durable."""
        self._written.sync()

    def _apply(self, piece: LogPiece) -> None:
        place = self._root / piece.path
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            status = None
        size = status.st_size if status is not None and stat.S_ISREG(status.st_mode) else 0
        if piece.offset > size:
            self._gaps[piece.path] = f"{piece.path} lacks the bytes from {size:,} to {piece.offset:,}, and what follows"
            return
        end = piece.offset + len(piece.data)
        finished = status is not None and stat.S_IMODE(status.st_mode) == piece.mode
        if status is not None and end <= size and finished:
            return
        if status is not None and stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IWUSR:
            os.chmod(place, 0o600)  # a finished segment is read-only, also for who is not root
        descriptor = self._written.open(piece.path, piece.mode)
        try:
            write_at(descriptor, piece.data, piece.offset)
            os.fchmod(descriptor, piece.mode)
            os.utime(descriptor, ns=(piece.mtime_ns, piece.mtime_ns))
        finally:
            os.close(descriptor)
        self.new += status is None
        self.grown += max(0, end - size)
