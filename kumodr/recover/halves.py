"""Write changes of a stream into one half of a restored spool, of either kind, and read back what is there."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kumodr import errors
from kumodr.recover.journal import part_of
from kumodr.recover.written import Written
from kumodr.spool.identifier import LENGTH
from kumodr.spool.kind import kind_of
from kumodr.spool.localdisk import MessageFile, path_of, read_message, walk
from kumodr.spool.writer import close_database, open_database
from kumodr.vault.packed import Changes

if TYPE_CHECKING:
    from rocksdict import Rdict, WriteBatch

_READ_AHEAD = 4 << 20
_MOST_FLAT_TABLES = 14
"""More tables than this in the first level, and KumoMTA would soon slow writes down: RocksDB does so at 20."""


class Half(Protocol):
    """One half, open for changes."""

    def apply(self, changes: Changes) -> None:
        """Given changes, write puts and deletes, durable when this returns. Doing it again changes nothing."""
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
    """A RocksDB half."""

    def __init__(self, half: Path, logs: Path, *, living: bool) -> None:
        self._half = half
        self._logs = logs
        self._open = True
        self._database: Rdict = open_database(half, logs, compact=living)

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
            self._write(batch)

    def ingest(self, tables: Sequence[str]) -> None:
        """Given tables that are not under each other, take them in, on top of all; the files move. Raise DiskFull."""
        if tables:
            take_in(self._database, tables, self._half)

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

    def _write(self, batch: "WriteBatch") -> None:
        from rocksdict import WriteOptions

        options = WriteOptions()
        options.sync = True
        try:
            self._database.write(batch, options)
        except Exception as error:  # the binding raises nothing more special
            raise errors.DiskFull(f"{self._half} cannot be written: {' '.join(str(error).split())[:400]}") from error


def take_in(database: "Rdict", tables: Sequence[str], half: Path) -> None:
    """Given an open database and tables that are not under each other, take them in, on top of all; the files move.

    Raise DiskFull.
    """
    from rocksdict import IngestExternalFileOptions

    options = IngestExternalFileOptions()
    options.set_move_files(True)
    try:
        database.ingest_external_file(list(tables), options)
    except Exception as error:  # the binding raises nothing more special
        raise errors.DiskFull(f"{half} cannot be written: {' '.join(str(error).split())[:400]}") from error


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


def keys_of(half: Path, logs: Path, first: bytes = b"", behind: bytes | None = None) -> Generator[bytes, None, None]:
    """Given a half that nothing has open, yield every key from `first` to before `behind`, in ascending order; those
    already yielded may be changed meanwhile. Close it. `logs` is a directory to make for the engine.

    Raise SpoolDamaged, SpoolUnreadable.
    """
    if kind_of(half) != "rocksdb":
        for found in walk(half):
            if isinstance(found, MessageFile) and first <= found.key and (behind is None or found.key < behind):
                yield found.key
        return
    from rocksdict import ReadOptions

    database = opened_to_read(half, logs)
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
            yield iterator.key()
            iterator.next()
        iterator.status()
    except errors.KumodrError:
        raise
    except Exception as error:  # the binding raises nothing more special
        raise errors.SpoolDamaged(f"{half} cannot be read: {' '.join(str(error).split())[:400]}") from error
    finally:
        database.close()


class PartsOf:
    """Keys in ascending order, taken part by part."""

    def __init__(self, keys: Iterator[bytes]) -> None:
        self._keys = keys
        self._next = next(keys, None)

    def of_part(self, part: int) -> frozenset[bytes]:
        """Given a part, behind the one asked for last, return the keys that are in it."""
        if self._next is None or part_of(self._next) != part:
            return frozenset()
        found = [self._next]
        self._next = None
        for key in self._keys:
            if part_of(key) != part:
                self._next = key
                break
            found.append(key)
        return frozenset(found)


class LocalHalf:
    """A LocalDisk half: a file for each message, of mode 0600 and the directory's owner, as KumoMTA makes them."""

    def __init__(self, half: Path) -> None:
        self._half = half
        self._written = Written(half)

    def put(self, key: bytes, value: bytes) -> None:
        """Given a key and its value, write its file, durable with `finish`."""
        self._written.replace(self._path(key), value, 0o600)

    def apply(self, changes: Changes) -> None:
        """See Half."""
        for key, value in changes.items():
            if value is not None:
                self.put(key, value)
        self.delete(key for key, value in changes.items() if value is None)
        self._written.sync()

    def delete(self, keys: Iterable[bytes]) -> None:
        """Given keys, remove those that are there. The directories stay, as KumoMTA leaves them."""
        for key in keys:
            path = self._path(key)
            with suppress(FileNotFoundError):
                os.unlink(self._half / path)
                self._written.changed(path)

    def get(self, key: bytes) -> bytes | None:
        """Given a key, return what its file holds, None where it is not there."""
        message = read_message(self._half, self._path(key))
        return None if message is None else message[0]

    def finish(self) -> None:
        """See Half."""
        self._written.sync()

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: bytes) -> str:
        if len(key) != LENGTH:
            raise errors.ObjectDamaged(f"the stream holds the key {key.hex()[:80]}, which no LocalDisk spool can have")
        return path_of(key)
