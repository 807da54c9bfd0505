"""Take messages out of a half of a copied spool, change them, put them back; never a live one: see `copyrule.py`."""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kumodr import errors
from kumodr.durable import sync_filesystem, write_file
from kumodr.spool.kind import kind_of
from kumodr.spool.localdisk import path_of, read_message

if TYPE_CHECKING:
    from rocksdict import Rdict, WriteBatch

_TABLE_FORMAT = 5
"""What RocksDB 8.10, which KumoMTA's own build has, writes and reads; official packages read it too."""


class Writer(Protocol):
    """One half, open for changes. What a call changed is durable when it returns."""

    def get(self, key: bytes) -> bytes | None: ...
    def attributes(self, key: bytes) -> Mapping[str, int]: ...
    def delete(self, keys: Iterable[bytes]) -> None: ...
    def put(self, key: bytes, value: bytes, attributes: Mapping[str, int]) -> None: ...
    def replace(self, values: Mapping[bytes, bytes]) -> None: ...
    def close(self) -> None: ...


def open_writer(half: Path, kind: str, logs: Path) -> Writer:
    """Given a half's directory, open it for changes; `logs` is a directory to make for the engine's log files.

    Raise SpoolMissing, SpoolDamaged.
    """
    return RocksWriter(half, logs) if kind_of(half, kind) == "rocksdb" else LocalWriter(half)


class RocksWriter:
    """A RocksDB half. Opened with KumoMTA's table format and compression; the engine's log files go elsewhere."""

    def __init__(self, half: Path, logs: Path) -> None:
        self._half = half
        self._logs = logs
        self._database = open_database(half, logs)

    def get(self, key: bytes) -> bytes | None:
        """Given a key, return its value, or None. Raise SpoolDamaged."""
        try:
            return self._database.get(key)
        except Exception as error:  # the binding raises nothing more special
            raise errors.SpoolDamaged(f"{key.hex()} in {self._half} cannot be read") from error

    def attributes(self, key: bytes) -> Mapping[str, int]:
        """A key has nothing beside its value."""
        return {}

    def delete(self, keys: Iterable[bytes]) -> None:
        """Given keys, remove them, all or none."""
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        for key in keys:
            batch.delete(key)
        self._write(batch)

    def put(self, key: bytes, value: bytes, attributes: Mapping[str, int]) -> None:
        """Given a key and its value, store it."""
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        batch.put(key, value)
        self._write(batch)

    def replace(self, values: Mapping[bytes, bytes]) -> None:
        """Given new values of keys that are there, store them, all or none."""
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        for key, value in values.items():
            batch.put(key, value)
        self._write(batch)

    def close(self) -> None:
        """Close the database, take the binding's own file away, and give every file to the directory's owner."""
        close_database(self._database, self._half, self._logs)

    def _write(self, batch: "WriteBatch") -> None:
        from rocksdict import WriteOptions

        options = WriteOptions()
        options.sync = True
        try:
            self._database.write(batch, options)
        except Exception as error:  # the binding raises nothing more special
            raise errors.DiskFull(f"{self._half} cannot be written: {' '.join(str(error).split())[:400]}") from error


def open_database(half: Path, logs: Path, *, compact: bool = False, create: bool = False) -> "Rdict":
    """Given a RocksDB half of a copy, open it for changes, the engine's log files in the private directory `logs`.

    With `create`, the directory is empty and becomes one. Raise SpoolDamaged.
    """
    from rocksdict import BlockBasedOptions, DBCompressionType, Options, Rdict

    logs.mkdir(mode=0o700, exist_ok=True)
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_paranoid_checks(True)
    options.set_compression_type(DBCompressionType.snappy())
    options.set_db_log_dir(str(logs))
    options.set_disable_auto_compactions(not compact)
    options.set_max_open_files(256)
    tables = BlockBasedOptions()
    tables.set_format_version(_TABLE_FORMAT)
    options.set_block_based_table_factory(tables)
    try:
        return Rdict(str(half), options)
    except Exception as error:  # the binding raises nothing more special
        shutil.rmtree(logs, ignore_errors=True)
        raise errors.SpoolDamaged(f"RocksDB does not open {half}: {' '.join(str(error).split())[:400]}") from error


def close_database(database: "Rdict", half: Path, logs: Path) -> None:
    """Given what `open_database` gave, close it, take the binding's own file away, and give every file to the
    directory's owner.
    """
    database.close()
    shutil.rmtree(logs, ignore_errors=True)
    (half / "rocksdict-config.json").unlink(missing_ok=True)
    owner = half.stat()
    for path in half.iterdir():
        own_as(path, owner.st_uid, owner.st_gid)


class LocalWriter:
    """A LocalDisk half."""

    def __init__(self, half: Path) -> None:
        self._half = half

    def get(self, key: bytes) -> bytes | None:
        """Given a key, return its file's content, or None. Raise SpoolUnreadable."""
        message = read_message(self._half, path_of(key))
        return None if message is None else message[0]

    def attributes(self, key: bytes) -> Mapping[str, int]:
        """Given a key, return its file's mode and owner; empty where there is no file."""
        try:
            status = os.stat(self._half / path_of(key), follow_symlinks=False)
        except FileNotFoundError:
            return {}
        return {"mode": status.st_mode & 0o7777, "uid": status.st_uid, "gid": status.st_gid}

    def delete(self, keys: Iterable[bytes]) -> None:
        """Given keys, remove their files."""
        for key in keys:
            with suppress(FileNotFoundError):
                (self._half / path_of(key)).unlink()
        sync_filesystem(self._half)

    def put(self, key: bytes, value: bytes, attributes: Mapping[str, int]) -> None:
        """Given a key, its content and what `attributes` said of it, make its file as it was."""
        path = self._half / path_of(key)
        owner = self._half.stat()
        for folder in reversed(path.parents):
            if self._half in folder.parents and not folder.exists():
                folder.mkdir(mode=0o755)
                own_as(folder, owner.st_uid, owner.st_gid)
        write_file(path, value)
        own_as(path, attributes.get("uid", owner.st_uid), attributes.get("gid", owner.st_gid))
        path.chmod(attributes.get("mode", 0o600))

    def replace(self, values: Mapping[bytes, bytes]) -> None:
        """Given new contents of files that are there, replace each by rename; modes and owners stay.

        Written in `new/`, where KumoMTA writes too and removes at start what was left there.
        """
        folder = self._half / "new"
        folder.mkdir(mode=0o755, exist_ok=True)
        own_as(folder, self._half.stat().st_uid, self._half.stat().st_gid)
        for key, value in values.items():
            status = os.stat(self._half / path_of(key), follow_symlinks=False)
            path = folder / f"kumodr-{key.hex()}"
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(value)
            own_as(path, status.st_uid, status.st_gid)
            path.chmod(status.st_mode & 0o7777)
        sync_filesystem(self._half)
        for key in values:
            (folder / f"kumodr-{key.hex()}").rename(self._half / path_of(key))
        sync_filesystem(self._half)

    def close(self) -> None:
        """Nothing is held open."""


def own_as(path: Path, uid: int, gid: int) -> None:
    """Given a path and an owner, make it theirs where this process may."""
    status = path.stat(follow_symlinks=False)
    if (status.st_uid, status.st_gid) != (uid, gid):
        with suppress(PermissionError):
            os.chown(path, uid, gid, follow_symlinks=False)
