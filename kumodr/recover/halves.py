"""Write changes of a stream into one half of a restored spool, of either kind, and read back what is there."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kumodr import errors
from kumodr.recover.written import Written
from kumodr.spool.identifier import LENGTH
from kumodr.spool.kind import kind_of
from kumodr.spool.localdisk import MessageFile, path_of, read_message, walk
from kumodr.spool.writer import close_database, open_database
from kumodr.vault.segment import Changes

if TYPE_CHECKING:
    from rocksdict import Rdict, WriteBatch

_READ_AHEAD = 4 << 20
_SMALL_BUFFER_UNTIL = 512 << 20
_LARGE_BUFFER = 256 << 20
_MOST_FLAT_TABLES = 14
"""More tables than this in the first level, and KumoMTA would soon slow writes down: RocksDB does so at 20."""

Entry = tuple[bytes, Callable[[], bytes]]
"""A key, and what reads its value."""


class Half(Protocol):
    """One half, open for changes."""

    def put(self, changes: Changes) -> None:
        """Given changes, write the puts among them."""
        ...

    def apply(self, changes: Changes) -> None:
        """Given changes, write puts and deletes, durable when this returns. Doing it again changes nothing."""
        ...

    def delete(self, keys: Iterable[bytes]) -> None:
        """Given keys that are there, remove them."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Yield every key in ascending order; those already yielded may be deleted meanwhile. Raise SpoolDamaged."""
        ...

    def finish(self) -> None:
        """Make everything durable and let go of it."""
        ...

    def close(self) -> None:
        """Let go of it, whatever state it is in; for when something went wrong."""
        ...


def open_half_of_copy(half: Path, logs: Path, *, living: bool = False) -> Half:
    """Given a half of a restored spool that is not marked yet, open it; `logs` is a directory to make for the engine.

    `living` is for one that stays open for days: RocksDB may compact it then. Raise SpoolMissing, SpoolDamaged.
    """
    return RocksHalf(half, logs, living=living) if kind_of(half) == "rocksdb" else LocalHalf(half)


class RocksHalf:
    """A RocksDB half, written without its write-ahead log and flushed at the end, but for `apply`."""

    def __init__(self, half: Path, logs: Path, *, living: bool) -> None:
        self._half = half
        self._logs = logs
        self._written = 0
        self._large = False
        self._open = True
        self._database: Rdict = open_database(half, logs, compact=living)

    def put(self, changes: Changes) -> None:
        """See Half."""
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is not None:
                batch.put(key, value)
        self._written += batch.size_in_bytes()
        if not self._large and self._written > _SMALL_BUFFER_UNTIL:
            self._database.set_options({"write_buffer_size": str(_LARGE_BUFFER)})
            self._large = True
        self._write(batch, durable=False)

    def apply(self, changes: Changes) -> None:
        """See Half. A delete is written only where there is something to delete."""
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is not None:
                batch.put(key, value)
            elif self._database.get(key) is not None:
                batch.delete(key)
        if not batch.is_empty():
            self._write(batch, durable=True)

    def delete(self, keys: Iterable[bytes]) -> None:
        """See Half."""
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        for key in keys:
            batch.delete(key)
        if not batch.is_empty():
            self._write(batch, durable=False)

    def entries(self) -> Iterator[Entry]:
        """See Half. The iterator is of one moment: changes made meanwhile are not in it."""
        return entries_of(self._database, self._half)

    def finish(self) -> None:
        """See Half. Where the stream left many tables on top of each other, they are brought into order."""
        try:
            self._database.flush()
            if (self._database.property_int_value("rocksdb.num-files-at-level0") or 0) > _MOST_FLAT_TABLES:
                self._database.compact_range(None, None)
        except Exception as error:  # the binding raises nothing more special
            raise errors.DiskFull(f"{self._half} cannot be written: {' '.join(str(error).split())[:400]}") from error
        self.close()

    def close(self) -> None:
        """See Half."""
        if self._open:
            self._open = False
            close_database(self._database, self._half, self._logs)

    def _write(self, batch: "WriteBatch", *, durable: bool) -> None:
        from rocksdict import WriteOptions

        options = WriteOptions()
        options.disable_wal = not durable  # pyright: ignore[reportAttributeAccessIssue] — its stub is wrong
        options.sync = durable
        try:
            self._database.write(batch, options)
        except Exception as error:  # the binding raises nothing more special
            raise errors.DiskFull(f"{self._half} cannot be written: {' '.join(str(error).split())[:400]}") from error


def opened_to_read(half: Path, logs: Path) -> "Rdict":
    """Given a RocksDB half of a restored spool that nothing has open, open it for reading. Raise SpoolDamaged."""
    from rocksdict import AccessType, Options, Rdict

    logs.mkdir(mode=0o700, exist_ok=True)
    options = Options(raw_mode=True)
    options.set_paranoid_checks(True)
    options.set_db_log_dir(str(logs))
    options.set_max_open_files(256)
    try:
        return Rdict(str(half), options, access_type=AccessType.read_only())
    except Exception as error:  # the binding raises nothing more special
        raise errors.SpoolDamaged(f"RocksDB does not open {half}: {' '.join(str(error).split())[:400]}") from error


def entries_of(database: "Rdict", half: Path, first: bytes = b"", behind: bytes | None = None) -> Iterator[Entry]:
    """Given an open database, yield every key from `first` to before `behind`, as of now. Raise SpoolDamaged."""
    from rocksdict import ReadOptions

    options = ReadOptions()
    options.set_readahead_size(_READ_AHEAD)
    options.fill_cache(False)  # pyright: ignore[reportCallIssue] — its stub is wrong
    if behind is not None:
        options.set_iterate_upper_bound(behind)
    try:
        iterator = database.iter(options)
        if first:
            iterator.seek(first)
        else:
            iterator.seek_to_first()
        while iterator.valid():
            yield iterator.key(), iterator.value
            iterator.next()
        iterator.status()
    except errors.KumodrError:
        raise
    except Exception as error:  # the binding raises nothing more special
        raise errors.SpoolDamaged(f"{half} cannot be read: {' '.join(str(error).split())[:400]}") from error


class LocalHalf:
    """A LocalDisk half: a file for each message, of mode 0600 and the directory's owner, as KumoMTA makes them."""

    def __init__(self, half: Path) -> None:
        self._half = half
        self._written = Written(half)

    def put(self, changes: Changes) -> None:
        """See Half."""
        for key, value in changes.items():
            if value is not None:
                self._written.replace(self._path(key), value, 0o600)

    def apply(self, changes: Changes) -> None:
        """See Half."""
        self.put(changes)
        self.delete(key for key, value in changes.items() if value is None)
        self._written.sync()

    def delete(self, keys: Iterable[bytes]) -> None:
        """See Half. The directories stay, as KumoMTA leaves them."""
        for key in keys:
            path = self._path(key)
            with suppress(FileNotFoundError):
                os.unlink(self._half / path)
                self._written.changed(path)

    def entries(self) -> Iterator[Entry]:
        """See Half."""
        for found in walk(self._half):
            if isinstance(found, MessageFile):
                yield found.key, lambda path=found.path: self._read(path)

    def finish(self) -> None:
        """See Half."""
        self._written.sync()

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: bytes) -> str:
        if len(key) != LENGTH:
            raise errors.ObjectDamaged(f"the stream holds the key {key.hex()[:80]}, which no LocalDisk spool can have")
        return path_of(key)

    def _read(self, path: str) -> bytes:
        message = read_message(self._half, path)
        if message is None:
            raise errors.SpoolDamaged(f"{self._half}/{path} is gone")
        return message[0]
