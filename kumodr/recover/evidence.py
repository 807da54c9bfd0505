"""What a restored spool is complete up to, and which messages the stream saw finish; `spool reconcile` reads it."""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kumodr.clock import text_of_time
from kumodr.durable import sync_directory, write_file
from kumodr.ledger.evidence import DESCRIPTION, FINISHED_IDS, FOLDER


class FinishedIds:
    """The file of the ids that the stream saw deleted last, written in a restored directory; use as a context."""

    def __init__(self, target: Path) -> None:
        self._folder = target / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / FINISHED_IDS
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o600), "wb")

    def __enter__(self) -> Self:
        return self

    def add(self, keys: Iterable[bytes]) -> None:
        """Given 16-byte keys, add them."""
        self._file.write(b"".join(keys))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        sync_directory(self._folder)


def write_evidence(
    target: Path,
    point: str,
    spool_until: datetime,
    logs_until: datetime | None,
    stream: Mapping[str, Any] | None,
) -> None:
    """Given a restored directory and what its spool and logs are complete up to, write the description, durably."""
    folder = target / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    document = {
        "point": point,
        "spool_until": text_of_time(spool_until),
        "logs_until": text_of_time(logs_until) if logs_until else None,
        "stream": dict(stream) if stream else None,
    }
    write_file(folder / DESCRIPTION, json.dumps(document, indent=2).encode() + b"\n")
    if not (folder / FINISHED_IDS).exists():
        write_file(folder / FINISHED_IDS, b"")
    sync_directory(target)
