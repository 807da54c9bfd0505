"""A RocksDB database held still by open descriptors, while its server goes on writing.

Why the result is one moment of the database. CURRENT names the MANIFEST; the MANIFEST, which only grows, names the
tables (`*.sst`, written once); what is newer stands in the write-ahead logs, which only grow.
1. CURRENT is read, the MANIFEST opened and its size noted.
2. The directory is listed and every table and log is opened: from here on an unlink cannot take them away.
3. It is accepted only if CURRENT, the MANIFEST's size, the set of logs and the directory itself are still the same;
   otherwise everything is closed and tried again. Between 1 and 3 the set of live tables was constant, so all of them
   existed during 2 and were listed; no log came or went, so the logs opened are those that belong to that MANIFEST.
4. Only now the sizes of the logs are noted, by ascending number. Writes up to 3 are all in these logs. A log with a
   successor is complete (RocksDB begins the next one only after the last write to it); of the newest a prefix is
   taken. What is taken is therefore a prefix of the sequence of writes that reaches at least to 3: the state at one
   moment between 3 and 4, later by nothing than the moment at which the caller gets it. So when `meta` is held before
   `data` is begun, nothing in `meta` is newer than anything in `data`.
A flush or compaction after 3 changes nothing: its inputs are pinned and the MANIFEST is cut at the noted size.
"""

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.spool.openfile import open_read_only, read_whole

_SMALL = 1 << 20
_CURRENT = re.compile(rb"(MANIFEST-\d{6,20})\n")
_TABLE = re.compile(r"\d{6,20}\.(sst|blob)")
_LOG = re.compile(r"\d{6,20}\.log")
_SMALL_FILE = re.compile(r"IDENTITY|OPTIONS-\d{6,20}")


@dataclass(frozen=True)
class PinnedFile:
    """One file behind a descriptor; `status` (with the size that counts) was taken when it was noted."""

    name: str
    descriptor: int
    status: os.stat_result


@dataclass(frozen=True)
class PinnedDatabase:
    """One moment of a database. `tables` are all that were there, more than belong to it; `small` is in memory.

    `close` lets go of every descriptor.
    """

    directory: Path
    status: os.stat_result
    manifest: PinnedFile
    tables: tuple[PinnedFile, ...]
    logs: tuple[PinnedFile, ...]
    small: tuple[tuple[PinnedFile, bytes], ...]
    retries: int
    close: Callable[[], None]


class _Changed(Exception):
    """The database moved on while it was being pinned; the text says what changed."""


def pin(directory: Path, *, attempts: int, pause: Callable[[float], None] = time.sleep) -> PinnedDatabase:
    """Given a database's directory, hold one moment of it; nothing is written, locked or touched there.

    Raise SpoolMissing, SpoolUnreadable, SpoolDamaged where CURRENT or its MANIFEST is missing, and SpoolChanging
    where it was still changing after that many attempts.
    """
    reason = ""
    for attempt in range(attempts):
        with ExitStack() as held:
            try:
                found = _pin_once(directory, held, attempt)
                return found(held.pop_all().close)
            except _Changed as change:
                reason = str(change)
            except OSError as error:
                raise _named(directory, error) from error
        pause(min(0.001 * (1 + attempt), 0.05))
    if reason.startswith("MANIFEST-"):
        raise errors.SpoolDamaged(f"the spool {directory} is damaged: {reason}")
    raise errors.SpoolChanging(f"the spool {directory} did not hold still for {attempts} attempts ({reason})")


def _pin_once(directory: Path, held: ExitStack, retries: int) -> Callable[[Callable[[], None]], PinnedDatabase]:
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(os.close, at)
    status = os.fstat(at)
    current, current_text = _read_small("CURRENT", at, held, directory)
    match = _CURRENT.fullmatch(current_text)
    if match is None:
        raise errors.SpoolDamaged(f"the spool {directory} is damaged: CURRENT names no MANIFEST")
    manifest_name = match[1].decode()
    manifest = _open_file(manifest_name, at, held)
    names = os.listdir(at)
    logs = sorted((name for name in names if _LOG.fullmatch(name)), key=_number)
    tables = [_open_file(name, at, held) for name in sorted(filter(_TABLE.fullmatch, names))]
    opened_logs = [_open_file(name, at, held) for name in logs]
    small = [_read_small(name, at, held, directory) for name in sorted(filter(_SMALL_FILE.fullmatch, names))]
    _accept(directory, at, status, current_text, manifest, logs)
    noted = tuple(PinnedFile(log.name, log.descriptor, os.fstat(log.descriptor)) for log in opened_logs)
    # CURRENT comes last: a directory in which it stands has everything else.
    return lambda close: PinnedDatabase(
        directory, status, manifest, tuple(tables), noted, (*small, (current, current_text)), retries, close
    )


def _accept(
    directory: Path, at: int, status: os.stat_result, current_text: bytes, manifest: PinnedFile, logs: list[str]
) -> None:
    """Raise _Changed unless everything that decides is as it was before the pins."""
    with ExitStack() as again:
        if _read_small("CURRENT", at, again, directory)[1] != current_text:
            raise _Changed("CURRENT changed")
    if os.fstat(manifest.descriptor).st_size != manifest.status.st_size:
        raise _Changed(f"{manifest.name.partition('-')[0].lower()} grew")
    if sorted((name for name in os.listdir(at) if _LOG.fullmatch(name)), key=_number) != logs:
        raise _Changed("the write-ahead logs changed")
    try:
        now = os.stat(directory)
    except FileNotFoundError:
        raise _Changed("the directory was replaced") from None
    if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
        raise _Changed("the directory was replaced")


def _open_file(name: str, at: int, held: ExitStack) -> PinnedFile:
    try:
        descriptor = open_read_only(name, at)
    except FileNotFoundError:
        raise _Changed(f"{name} is gone") from None
    held.callback(os.close, descriptor)
    return PinnedFile(name, descriptor, os.fstat(descriptor))


def _read_small(name: str, at: int, held: ExitStack, directory: Path) -> tuple[PinnedFile, bytes]:
    try:
        file = _open_file(name, at, held)
    except _Changed:
        if name == "CURRENT":
            raise errors.SpoolDamaged(f"the spool {directory} is damaged: CURRENT is missing") from None
        raise
    return file, read_whole(file.descriptor, _SMALL)


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _named(directory: Path, error: OSError) -> errors.KumodrError:
    where = f"{directory}/{error.filename}" if error.filename and str(error.filename) != str(directory) else directory
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return errors.SpoolMissing(f"there is no spool directory {directory}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return errors.SpoolUnreadable(
            f"the spool {directory} has more files than this process may open",
            remedy="raise the limit of open files (ulimit -n, LimitNOFILE=)",
        )
    return errors.SpoolUnreadable(f"{where} cannot be opened: {error.strerror or error}")
