"""One half of kind RocksDB as its tables and logs, each read by itself.

Which of the files belong to the database says its MANIFEST; where that cannot be read, every file counts.
The sequence numbers, which RocksDB gives to every write, say which of several entries for an id is the newest, whatever
file it stands in: tables and logs need no order. (RocksDB sets the number of an entry in the lowest level to 0; nothing
older than that is left.) They also say how many writes a gap between logs had.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.protect.wal.batch import decode
from kumodr.protect.wal.manifest import last_sequence_of
from kumodr.protect.wal.records import WalReader, WalUnusable
from kumodr.source import Pinned
from kumodr.spool.live import LiveFiles, live_files
from kumodr.spool.openfile import open_read_only
from kumodr.spool.salvage.entry import NOTHING, Entry, Unknown
from kumodr.spool.salvage.log import LogGap, records_of
from kumodr.spool.table.read import Gap, read_table

_DELETION, _VALUE, _SINGLE_DELETION = 0, 1, 7
_NUMBERED = re.compile(r"(\d{6,20})\.(sst|log)")
_MANIFEST = re.compile(r"MANIFEST-(\d{6,20})")
_PIECE = 1 << 20
_PAGE = 4096
_ATTEMPTS = 50


@dataclass(frozen=True)
class Source:
    """One file: its name, and its content through a descriptor that stays open."""

    name: str
    descriptor: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Given a range, return its bytes, fewer at the end. Pages that the disk does not give back are zeros."""
        length = min(length, self.size - offset)
        try:
            return _whole(self.descriptor, offset, length)
        except OSError:
            pieces = (self._page(at, min(_PAGE, offset + length - at)) for at in range(offset, offset + length, _PAGE))
            return b"".join(pieces)

    def _page(self, offset: int, length: int) -> bytes:
        try:
            return _whole(self.descriptor, offset, length)
        except OSError:
            return bytes(length)


class RocksSource:
    """The files of a half, held open; nothing in it is changed. Close it after use."""

    def __init__(self, half: Path) -> None:
        """Raise SpoolUnreadable."""
        self._descriptors: list[int] = []
        self.unknown: list[Unknown] = []
        self.sources: tuple[Source, ...] = ()
        self._expected = 0
        for _attempt in range(_ATTEMPTS):
            before = _state(half)
            try:
                self._hold(half)
            except OSError as error:
                self.close()
                if _state(half) == before:
                    reason = f"{error.filename or half} cannot be read: {error.strerror}"
                    raise errors.SpoolUnreadable(reason) from error
            if _state(half) == before:
                return
            self.close()
            self.unknown.clear()
        raise errors.SpoolChanging(f"{half} does not hold still: a mail server runs on it")

    def _hold(self, half: Path) -> None:
        """Open the files that belong to the database; they stay readable whatever happens to their names."""
        names = sorted(os.listdir(half)) if half.is_dir() else []
        live, written = self._manifest(half, names)
        self._expected = written + 1 if written else 0
        wanted = [name for name in names if _NUMBERED.fullmatch(name) and (live is None or live.holds(name))]
        self.sources = tuple(self._open(half, name) for name in wanted)
        if live is not None:
            self._missing(live, {source.name for source in self.sources})

    def entries(self, source: Source) -> Iterator[Entry]:
        """Given one of the sources, yield what can be read of it; what cannot is added to `unknown`, once."""
        return self._table(source) if source.name.endswith(".sst") else self._log(source)

    def close(self) -> None:
        """Let go of the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _open(self, half: Path, name: str) -> Source:
        descriptor = open_read_only(str(half / name))
        self._descriptors.append(descriptor)
        return Source(name, descriptor, os.fstat(descriptor).st_size)

    def _manifest(self, half: Path, names: list[str]) -> tuple[LiveFiles | None, int]:
        """Return which files belong to the database, and the last number that the MANIFEST tells."""
        if not names:
            self._note("nothing is left of it")
            return None, 0
        manifests = [name for name in names if _MANIFEST.fullmatch(name)]
        if not manifests:
            self._note("its MANIFEST is missing: files that were dropped already may count")
            return None, 0
        if "CURRENT" not in names:
            self._note("its CURRENT is missing", harmless=True)
        source = self._open(half, manifests[-1])
        live = live_files(Pinned(source.descriptor), source.size)
        if live is None:
            self._note("its MANIFEST is damaged: files that were dropped already may count")
        return live, _last_sequence(source)

    def _missing(self, live: LiveFiles, there: set[str]) -> None:
        for number in sorted(live.tables):
            if f"{number:06}.sst" not in there:
                self._note(f"{number:06}.sst is missing")
        if not any(name.endswith(".log") for name in there):
            self._note("its write-ahead log is missing: the newest messages are not in it")

    def _table(self, source: Source) -> Iterator[Entry]:
        for found in read_table(source.read, source.size):
            if isinstance(found, Gap):
                where = f"{source.name}: {found.size:,} bytes at {found.offset:,} cannot be read: {found.reason}"
                self._add(Unknown(where, found.after, found.until))
                continue
            for each in found:
                if each.kind == _VALUE:
                    yield Entry(each.key, each.sequence, each.value)
                elif each.kind in (_DELETION, _SINGLE_DELETION):
                    yield Entry(each.key, each.sequence, None)

    def _log(self, source: Source) -> Iterator[Entry]:
        expected = self._expected
        for record in records_of(source.read, source.size):
            if isinstance(record, LogGap):
                self._add(Unknown(f"{source.name}: damage at {record.offset:,}"))
                continue
            try:
                batch = decode(record)
            except WalUnusable as reason:
                self._add(Unknown(f"{source.name}: {reason}"))
                continue
            if batch.sequence > expected and expected:
                missing = f"{batch.sequence - expected:,} writes before number {batch.sequence:,} are missing"
                self._add(Unknown(f"{source.name}: {missing}"))
            expected = max(expected, batch.next)
            for number, (key, value) in enumerate(batch.entries, batch.sequence):
                if len(key) == 16:
                    yield Entry(key, number, value)
        self._expected = expected

    def _note(self, text: str, *, harmless: bool = False) -> None:
        """What is missing may concern every id, unless it is harmless: then it concerns none."""
        self._add(Unknown(text, NOTHING) if harmless else Unknown(text))

    def _add(self, unknown: Unknown) -> None:
        if unknown not in self.unknown:
            self.unknown.append(unknown)


def _state(half: Path) -> tuple[object, ...]:
    """What changes whenever files come to belong to the database, or cease to: the sizes of its MANIFESTs, the logs."""
    found: list[object] = []
    try:
        for entry in os.scandir(half):
            if _MANIFEST.fullmatch(entry.name):
                found.append((entry.name, entry.stat().st_size))
            elif entry.name.endswith(".log"):
                found.append(entry.name)
    except OSError:
        return ()
    return tuple(sorted(map(str, found)))


def _whole(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length and (piece := os.pread(descriptor, length - len(data), offset + len(data))):
        data += piece
    return data


def _last_sequence(manifest: Source) -> int:
    last, reader = 0, WalReader()
    try:
        while reader.wanted < manifest.size:
            piece = manifest.read(reader.wanted, min(_PIECE, manifest.size - reader.wanted))
            for edit in reader.feed(piece):
                last = max(last, last_sequence_of(edit))
    except WalUnusable:
        pass
    return last
