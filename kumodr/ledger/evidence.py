"""The evidence that lies beside a restored spool, and with the operator: what says which messages are finished.

A restored directory holds `kumodr-restored.json`, `spool/`, perhaps `logs/` and `ledger/`, and where a stream was
replayed `evidence/evidence.json` and `evidence/finished.ids`: the 16-byte keys of all messages whose metadata the
stream saw deleted. Everything may be absent; then there is less evidence, and more is uncertain.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import time_of_text
from kumodr.recover.target import MARKER
from kumodr.spool.identifier import LENGTH
from kumodr.spool.openfile import open_read_only, read_whole

FOLDER = "evidence"
FINISHED_IDS = "finished.ids"
DESCRIPTION = "evidence.json"
_LARGEST_DOCUMENT = 64 << 20
_KEYS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Evidence:
    """What there is. `root` is the restored directory, None where the spool was not made by a restore.

    `spool_until` is the time up to which the spool is complete: every message acknowledged before it and not finished
    is in it. `logs_until` is the time up to which logs were stored. None: not known.
    """

    root: Path | None
    spool_until: datetime | None
    logs_until: datetime | None
    finished_ids: Path | None
    logs: tuple[Path, ...]
    """Directories with delivery logs, each to be read with all that is below it."""

    ledger: Path | None
    """The directory with Parquet files."""


def find_evidence(spool: Path, more_logs: Sequence[Path] = ()) -> Evidence:
    """Given the directory that holds `meta` and `data`, and more log directories, return what evidence there is.

    Raise LogUnreadable where a log directory that is named is none, and FileUnreadable for evidence that is damaged:
    what it would have said must not be taken for silence.
    """
    for each in more_logs:
        if not each.is_dir():
            raise errors.LogUnreadable(f"there is no log directory {each}", remedy="give --logs an existing directory")
    place = Path(os.path.realpath(spool))
    root = next((each for each in (place, place.parent) if (each / MARKER).is_file()), None)
    if root is None:
        return Evidence(None, None, None, None, tuple(more_logs), None)
    marker = _document(root / MARKER)
    described = _document(root / FOLDER / DESCRIPTION)
    components = marker.get("components")
    taken = components if isinstance(components, dict) else {}
    ids = root / FOLDER / FINISHED_IDS
    logs, ledger = root / "logs", root / "ledger"
    return Evidence(
        root=root,
        spool_until=_time(described, "spool_until", root) or _taken(taken, "spool", root),
        logs_until=_time(described, "logs_until", root) or _taken(taken, "logs", root),
        finished_ids=ids if ids.is_file() and ids.stat().st_size else None,
        logs=(*([logs] if logs.is_dir() else []), *more_logs),
        ledger=ledger if ledger.is_dir() else None,
    )


def finished_keys(path: Path) -> Iterator[bytes]:
    """Given the file of finished ids, yield it in pieces of whole keys. Raise FileUnreadable where it is cut."""
    try:
        descriptor = open_read_only(str(path))
        try:
            size = os.fstat(descriptor).st_size
            if size % LENGTH:
                raise errors.FileUnreadable(
                    f"{path} is no list of ids: its size is no multiple of {LENGTH}", remedy="restore it again"
                )
            offset = 0
            while offset < size:
                piece = os.pread(descriptor, LENGTH * _KEYS_AT_ONCE, offset)
                piece = piece[: len(piece) - len(piece) % LENGTH]
                if not piece:
                    break
                offset += len(piece)
                yield piece
        finally:
            os.close(descriptor)
    except OSError as error:
        raise errors.FileUnreadable(f"{path} cannot be read: {error.strerror or error}") from error


def _document(path: Path) -> dict[str, Any]:
    """Return a JSON object, empty where there is no such file. Raise FileUnreadable where it cannot be understood."""
    try:
        descriptor = open_read_only(str(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise errors.FileUnreadable(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        document = json.loads(read_whole(descriptor, _LARGEST_DOCUMENT))
    except (ValueError, RecursionError, OSError):
        document = None
    finally:
        os.close(descriptor)
    if not isinstance(document, dict):
        raise errors.FileUnreadable(f"{path} is damaged", remedy="restore again into an empty directory")
    return document


def _taken(components: dict[str, Any], name: str, root: Path) -> datetime | None:
    section = components.get(name)
    return _time(section, "taken", root) if isinstance(section, dict) else None


def _time(document: dict[str, Any], key: str, root: Path) -> datetime | None:
    text = document.get(key)
    if text is None:
        return None
    try:
        return time_of_text(text)
    except (ValueError, TypeError):
        raise errors.FileUnreadable(
            f"{key} {str(text)[:40]!r} beside {root} is no time", remedy="restore again into an empty directory"
        ) from None
