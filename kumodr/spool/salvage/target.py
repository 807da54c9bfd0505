"""Where one half of what was salvaged is written: a fresh database, or files, of the kind that the damaged one had."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from kumodr import errors
from kumodr.durable import sync_filesystem
from kumodr.spool.localdisk import path_of
from kumodr.spool.writer import close_database, open_database, own_as

_AT_ONCE = 64


def write_half(half: Path, kind: str, entries: Iterable[tuple[bytes, bytes]], like: Path) -> None:
    """Given a directory to make and entries, each id once, write them durably, with mode and owner of another half.

    Raise DiskFull.
    """
    status = like.stat()
    try:
        half.mkdir(mode=0o700)
        own_as(half, status.st_uid, status.st_gid)
        if kind == "rocksdb":
            _write_database(half, entries)
        else:
            _write_files(half, entries, status)
        half.chmod(status.st_mode & 0o7777)
        sync_filesystem(half)
    except OSError as error:
        raise errors.DiskFull(f"{half} cannot be written: {error.strerror or error}") from error


def _write_database(half: Path, entries: Iterable[tuple[bytes, bytes]]) -> None:
    from rocksdict import WriteBatch, WriteOptions

    logs = half.parent / f".{half.name}-log"
    database = open_database(half, logs, compact=True, create=True)
    unlogged = WriteOptions()
    unlogged.disable_wal = True  # pyright: ignore[reportAttributeAccessIssue] — its stub is wrong
    remaining = iter(entries)
    try:
        while some := list(islice(remaining, _AT_ONCE)):
            batch = WriteBatch(raw_mode=True)
            for key, value in some:
                batch.put(key, value)
            database.write(batch, unlogged)
        database.flush()
    except (errors.KumodrError, OSError):
        raise
    except Exception as error:  # the binding raises nothing more special
        raise errors.DiskFull(f"{half} cannot be written: {' '.join(str(error).split())[:400]}") from error
    finally:
        close_database(database, half, logs)


def _write_files(half: Path, entries: Iterable[tuple[bytes, bytes]], owner: os.stat_result) -> None:
    made: set[Path] = set()
    for key, value in entries:
        path = half / path_of(key)
        for folder in reversed(path.parents[: len(path.relative_to(half).parts) - 1]):
            if folder not in made:
                folder.mkdir(mode=0o755, exist_ok=True)
                own_as(folder, owner.st_uid, owner.st_gid)
                made.add(folder)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(value)
        own_as(path, owner.st_uid, owner.st_gid)
