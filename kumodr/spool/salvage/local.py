"""One half of kind LocalDisk: every message's file, read by itself."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from kumodr import errors
from kumodr.spool.localdisk import read_message
from kumodr.spool.metadata import MetadataUnreadable, parse
from kumodr.spool.salvage.entry import DOUBTFUL, READABLE, Entry, Unknown

_FILE = re.compile(r"data/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{24})")


class LocalSource:
    """The files of a half. What is unreadable, and in `meta` what does not parse, concerns its own id only."""

    sources = ("files",)

    def __init__(self, half: Path, *, metadata: bool) -> None:
        self._half = half
        self._metadata = metadata
        self.unknown: list[Unknown] = []

    def entries(self, _source: str) -> Iterator[Entry]:
        """Yield what can be read, in no order that matters; what cannot is added to `unknown`, once."""
        for folder, folders, names in os.walk(self._half / "data", onerror=self._closed):
            folders.sort()
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), self._half)
                found = _FILE.fullmatch(path)
                if found is not None:
                    yield from self._entry(bytes.fromhex("".join(found.groups())), path)

    def close(self) -> None:
        """Nothing is held open."""

    def _entry(self, key: bytes, path: str) -> Iterator[Entry]:
        try:
            message = read_message(self._half, path)
        except errors.SpoolUnreadable as error:
            self._add(Unknown(error.what, key, key))
            return
        if message is None:
            return
        sequence = READABLE
        if self._metadata:
            try:
                parse(message[0])
            except MetadataUnreadable as reason:
                self._add(Unknown(f"{path}: {reason}", key, key))
                sequence = DOUBTFUL
        yield Entry(key, sequence, message[0])

    def _closed(self, error: OSError) -> None:
        self._add(Unknown(f"{error.filename}: {error.strerror}"))

    def _add(self, unknown: Unknown) -> None:
        if unknown not in self.unknown:
            self.unknown.append(unknown)
