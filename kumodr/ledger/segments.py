"""Read delivery log segments leniently: finished ones, open ones, and those that a killed server left behind.

A segment is one zstd frame of lines of JSON. An open or truncated one can be read up to its last whole block; a killed
server's next start marks it read-only all the same, so nothing but the frame says whether it is whole.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kumodr import errors
from kumodr.spool.openfile import open_read_only

LONGEST_LINE = 16 << 20
"""Bytes. A longer line is left out and counted."""

_LARGEST_WINDOW = 1 << 27
_FED_AT_ONCE = 1 << 10
"""Compressed bytes. A block takes 4 of them and makes at most 128 KiB: what comes out is bounded by 32 MiB."""

_READ_AT_ONCE = 1 << 18


class Records:
    """The whole lines of one segment, in order, without their line feeds. Iterate once.

    Afterwards `finished` says whether every frame was whole, `skipped` how many lines were too long, and `problem`
    where the content was damaged (not only cut), if it was.
    """

    def __init__(self, path: Path) -> None:
        self.finished = False
        self.skipped = 0
        self.problem: str | None = None
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        too_long = False
        for plain in self._plain():
            first, *lines = plain.split(b"\n")
            held += first
            if lines:
                if too_long or len(held) > LONGEST_LINE:
                    self.skipped += 1
                elif held:
                    yield held
                too_long, held = False, lines.pop()
                fit = [line for line in lines if len(line) <= LONGEST_LINE]
                self.skipped += len(lines) - len(fit)
                yield from filter(None, fit)
            if len(held) > LONGEST_LINE:
                too_long, held = True, b""
        if self.finished and held and not too_long:
            yield held

    def _plain(self) -> Iterator[bytes]:
        """Yield what can be decompressed, in bounded pieces."""
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        frame = decompressor.decompressobj()
        begun = False
        try:
            for piece in _pieces(self._path):
                rest = piece
                while rest:
                    begun = True
                    plain = frame.decompress(rest)
                    rest = b""
                    if plain:
                        yield plain
                    if frame.eof:
                        rest = frame.unused_data
                        frame, begun = decompressor.decompressobj(), False
                        self.finished = True
        except zstandard.ZstdError as error:
            self.problem = f"{self._path} is damaged: {error}"
            begun = True
        self.finished = self.finished and not begun


def read_records(path: Path) -> Records:
    """Given a segment's path, return its records. Reading them raises LogUnreadable where it cannot be opened."""
    return Records(path)


def segment_paths(directory: Path) -> tuple[Path, ...]:
    """Given a log directory, return its segments in order of name, which is of time. Raise LogUnreadable."""
    try:
        with os.scandir(directory) as listing:
            names = sorted(
                entry.name
                for entry in listing
                if not entry.name.startswith(".") and entry.name[:1].isdigit() and entry.is_file(follow_symlinks=False)
            )
    except OSError as error:
        raise errors.LogUnreadable(f"the log directory {directory} cannot be listed: {error.strerror}") from error
    return tuple(directory / name for name in names)


def segments_below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Given a log directory, yield the path of each regular file in or below it, relative to it, and its status.

    In order of path. What begins with a dot is not KumoMTA's; links are not followed. What vanishes meanwhile is left
    out. Raise LogUnreadable.
    """

    def refuse(error: OSError) -> None:
        raise errors.LogUnreadable(f"the log directory {error.filename} cannot be read: {error.strerror}") from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if not name.startswith(".") and stat.S_ISREG(status.st_mode):
                yield os.path.relpath(path, root), status


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        descriptor = open_read_only(str(path))
    except OSError as error:
        raise errors.LogUnreadable(f"the log {path} cannot be opened: {error.strerror}") from error
    try:
        offset = 0
        while piece := os.pread(descriptor, _READ_AT_ONCE, offset):
            offset += len(piece)
            for start in range(0, len(piece), _FED_AT_ONCE):
                yield piece[start : start + _FED_AT_ONCE]
    except OSError as error:
        raise errors.LogUnreadable(f"the log {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
