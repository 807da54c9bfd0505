"""Which messages a base of plain files holds, told to the loop before it joins the base to its stream.

A walk sees what is there when it passes. A message that came after one walk and left before the next is in neither; but
the base, which is listed in between, may hold it. Nothing in the stream would say that it left, and restored it would
be sent again. So the loop is told every id that the base holds, and its next walk decides those it never saw.
(A database's log has every deletion, so a base of it needs none of this.)
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from kumodr import errors
from kumodr.plan.model import SpoolPlan
from kumodr.source import Capture, SourceFile
from kumodr.spool.kind import kind_of

ID = 16
_NAME = "base-ids"
_MESSAGE = re.compile(r"(?:meta|data)/data/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{24})")
_AT_ONCE = ID << 12


class Listed:
    """The ids of the message files that a capture yields while it is stored."""

    def __init__(self) -> None:
        self._ids = bytearray()

    def of(self, capture: Capture) -> Capture:
        """Given a capture, return it with its ids noted here. It is always read: a point stored before tells none."""
        return replace(capture, files=self._noted(capture.files), fingerprint=None)

    def write(self, state: Path) -> Path:
        """Given the node's state directory, write the ids to a file in it and return its path. Raise DiskFull."""
        path = state / _NAME
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._ids)
        except OSError as error:
            raise errors.DiskFull(f"{path} cannot be written: {error.strerror}") from error
        return path

    def _noted(self, files: Iterable[SourceFile]) -> Iterator[SourceFile]:
        for file in files:
            if match := _MESSAGE.fullmatch(file.path):
                self._ids += bytes.fromhex("".join(match.groups()))
            yield file


def taken_in(path: Path) -> Iterator[bytes]:
    """Given the file that `write` wrote, yield its ids, and remove it at the end. Raise OSError."""
    with open(path, "rb") as file:
        while piece := file.read(_AT_ONCE):
            for at in range(0, len(piece) - ID + 1, ID):
                yield piece[at : at + ID]
    path.unlink()


def is_of_files(spool: SpoolPlan) -> bool:
    """Given where the spool is, say whether it has plain files. Raise the spool's errors."""
    return "localdisk" in {kind_of(Path(each), spool.kind) for each in (spool.meta, spool.data)}
