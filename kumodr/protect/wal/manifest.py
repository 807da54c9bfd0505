"""The last sequence number that a live database's MANIFEST tells, read as it grows.

Every edit of a flush carries the number of the last write that was in the database then (`db/version_set.cc`,
LogAndApplyHelper), and that write was in a log before. Who has read every log to its end since must have met it; so a
log that came and went unseen shows at once, not only at the next write, and so do writes without a log, when they are
flushed, and ingested files whose keys overlap with what is there. Other ingested files take no number and show nowhere;
KumoMTA has none of these.
"""

import os
import re

from kumodr.protect.wal.batch import number_at
from kumodr.protect.wal.records import WalReader, WalUnusable, last_record
from kumodr.spool.openfile import open_read_only, read_whole

_PIECE = 1 << 20
_CURRENT = re.compile(rb"(MANIFEST-\d{6,20})\n")
_LAST_SEQUENCE = 4
_NUMBERS = frozenset((2, 3, 9, 10, 203))
_TEXTS = frozenset((1, 201))


class ManifestTail:
    """Follow the MANIFEST that CURRENT names, from its last edit on. Close it after use."""

    def __init__(self) -> None:
        self._name = ""
        self._descriptor: int | None = None
        self._reader = WalReader()
        self._last = 0

    def last_sequence(self, directory: int) -> int:
        """Given the open directory, return the highest number told up to now. Raise WalUnusable, OSError."""
        name = _current(directory)
        try:
            if name != self._name:
                name = self._open(name, directory)
            if self._descriptor is None:
                raise WalUnusable("it is missing")
            self._reader.forget_tail()
            while piece := os.pread(self._descriptor, _PIECE, self._reader.wanted):
                for edit in self._reader.feed(piece):
                    self._last = max(self._last, last_sequence_of(edit))
        except WalUnusable as reason:
            raise WalUnusable(f"{name} cannot be read: {reason}") from None
        return self._last

    def close(self) -> None:
        """Let go of the MANIFEST."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._name = ""

    def _open(self, name: str, directory: int) -> str:
        """Open the MANIFEST; where a newer one takes its place in between, that one. Return the name asked for last."""
        for _ in range(3):
            try:
                descriptor = open_read_only(name, directory)
            except FileNotFoundError:
                name = _current(directory)
                continue
            self.close()
            self._name, self._descriptor = name, descriptor
            found = last_record(descriptor, os.fstat(descriptor).st_size, 0)
            self._reader = WalReader(found[0] if found else 0)
            return name
        self.close()
        return name


def last_sequence_of(edit: bytes) -> int:
    """Given a version edit, return the last sequence number in it, which stands before all files; 0 where none does."""
    at = 0
    try:
        while at < len(edit):
            tag, at = number_at(edit, at)
            number, at = number_at(edit, at)
            if tag == _LAST_SEQUENCE:
                return number
            if tag in _TEXTS:
                at += number
            elif tag not in _NUMBERS:
                break
    except IndexError:
        pass
    return 0


def _current(directory: int) -> str:
    try:
        descriptor = open_read_only("CURRENT", directory)
    except FileNotFoundError:
        raise WalUnusable("CURRENT is missing") from None
    try:
        match = _CURRENT.fullmatch(read_whole(descriptor, 1 << 10))
    finally:
        os.close(descriptor)
    if match is None:
        raise WalUnusable("CURRENT names no MANIFEST")
    return match[1].decode()
