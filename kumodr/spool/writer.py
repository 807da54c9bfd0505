"""Take messages out of a half of a copied spool, and put them back. Never for a live spool: see `copyrule.py`."""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kumodr import errors
from kumodr.durable import sync_directory, write_file
from kumodr.spool.kind import kind_of
from kumodr.spool.localdisk import path_of, read_message

if TYPE_CHECKING:
    from rocksdict import WriteBatch

_TABLE_FORMAT = 5
"""What RocksDB 8.10, which KumoMTA's own build has, writes and reads; official packages read it too."""


class Writer(Protocol):
    """One half, open for changes. What a call changed is durable when it returns."""

    def get(self, key: bytes) -> bytes | None: ...
    def attributes(self, key: bytes) -> Mapping[str, int]: ...
    def delete(self, keys: Iterable[bytes]) -> None: ...
    def put(self, key: bytes, value: bytes, attributes: Mapping[str, int]) -> None: ...
    def close(self) -> None: ...


def open_writer(half: Path, kind: str, logs: Path) -> Writer:
    """Given a half's directory, open it for changes; `logs` is a directory to make for the engine's log files.

    Raise SpoolMissing, SpoolDamaged.
    """
    return RocksWriter(half, logs) if kind_of(half, kind) == "rocksdb" else LocalWriter(half)


class RocksWriter:
    """A RocksDB half. Opened with KumoMTA's table format and compression; the engine's log files go elsewhere."""

    def __init__(self, half: Path, logs: Path) -> None:
        from rocksdict import BlockBasedOptions, DBCompressionType, Options, Rdict

        self._half = half
        self._logs = logs
        logs.mkdir(mode=0o700, exist_ok=True)
        options = Options(raw_mode=True)
        options.create_if_missing(False)
        options.set_paranoid_checks(True)
        options.set_compression_type(DBCompressionType.snappy())
        options.set_db_log_dir(str(self._logs))
        options.set_disable_auto_compactions(True)
        options.set_max_open_files(256)
        tables = BlockBasedOptions()
        tables.set_format_version(_TABLE_FORMAT)
        options.set_block_based_table_factory(tables)
        try:
            self._database = Rdict(str(half), options)
        except Exception as error:  # the binding raises nothing more special
            shutil.rmtree(self._logs, ignore_errors=True)
            raise errors.SpoolDamaged(f"RocksDB does not open {half}: {' '.join(str(error).split())[:400]}") from error

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

    def close(self) -> None:
        """Close the database, take the binding's own file away, and give every file to the directory's owner."""
        self._database.close()
        shutil.rmtree(self._logs, ignore_errors=True)
        (self._half / "rocksdict-config.json").unlink(missing_ok=True)
        owner = self._half.stat()
        for path in self._half.iterdir():
            own_as(path, owner.st_uid, owner.st_gid)

    def _write(self, batch: "WriteBatch") -> None:
        from rocksdict import WriteOptions

        options = WriteOptions()
        options.sync = True
        try:
            self._database.write(batch, options)
        except Exception as error:  # the binding raises nothing more special
            raise errors.DiskFull(f"{self._half} cannot be written: {' '.join(str(error).split())[:400]}") from error


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
            path = self._half / path_of(key)
            with suppress(FileNotFoundError):
                path.unlink()
                sync_directory(path.parent)

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

    def close(self) -> None:
        """Nothing is held open."""


def own_as(path: Path, uid: int, gid: int) -> None:
    """Given a path and an owner, make it theirs where this process may."""
    status = path.stat(follow_symlinks=False)
    if (status.st_uid, status.st_gid) != (uid, gid):
        with suppress(PermissionError):
            os.chown(path, uid, gid, follow_symlinks=False)
