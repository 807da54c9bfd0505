"""The two halves of a spool, written as KumoMTA writes them: RocksDB and LocalDisk."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class Half(Protocol):
    """One half: keys and values."""

    def put(self, key: bytes, value: bytes) -> None: ...

    def get(self, key: bytes) -> bytes | None: ...

    def remove(self, key: bytes) -> None: ...

    def entries(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield every key and value; None where the value cannot be read."""
        ...

    def compact(self) -> None: ...

    def close(self) -> None: ...


class RocksHalf:
    """RocksDB with the options that kumod sets (facts §1.4): no sync, Snappy, paranoid checks off."""

    def __init__(self, path: Path, write_buffer_size: int | None) -> None:
        from rocksdict import BlockBasedOptions, DBCompressionType, Options, Rdict

        path.mkdir(parents=True, exist_ok=True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_keep_log_file_num(10)
        options.set_use_fsync(False)
        options.set_paranoid_checks(False)
        options.set_compression_type(DBCompressionType.snappy())
        options.set_max_file_opening_threads(2)
        if write_buffer_size:
            options.set_write_buffer_size(write_buffer_size)
        tables = BlockBasedOptions()
        tables.set_format_version(5)
        options.set_block_based_table_factory(tables)
        self._path = path
        self._database = Rdict(str(path), options)
        self._forget_binding()

    def put(self, key: bytes, value: bytes) -> None:
        self._database[key] = value

    def get(self, key: bytes) -> bytes | None:
        return self._database.get(key)

    def remove(self, key: bytes) -> None:
        self._database.delete(key)

    def entries(self) -> Iterator[tuple[bytes, bytes | None]]:
        from rocksdict import ReadOptions

        items: Any = self._database.items()
        last: Any = None
        for item in items:
            last = item[0]
            yield item
        # The binding's iterators end in silence at damage; KumoMTA's does not: step over the end and ask.
        iterator = self._database.iter(ReadOptions())
        if last is None:
            iterator.seek_to_first()
        else:
            iterator.seek(last)
            if iterator.valid() and iterator.key() == last:  # it may have been removed meanwhile
                iterator.next()
        iterator.status()

    def compact(self) -> None:
        self._database.flush()
        self._database.compact_range(None, None)

    def close(self) -> None:
        """Stop as kumod does: background work ends, the memtable is not flushed (the binding's own close would)."""
        self._database.cancel_all_background(True)
        del self._database
        self._forget_binding()

    def _forget_binding(self) -> None:
        """The Python binding leaves a file of its own in the directory, which a real server does not."""
        (self._path / "rocksdict-config.json").unlink(missing_ok=True)


class LocalHalf:
    """Plain files (facts §1.2): temporary file in `new`, rename to `data/a1/a2/a3/a4/rest`, nothing synced."""

    def __init__(self, path: Path) -> None:
        self._new = path / "new"
        self._data = path / "data"
        self._new.mkdir(parents=True, exist_ok=True)
        self._data.mkdir(exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        os.fchmod(self._lock, 0o1644)
        for left in self._new.iterdir():
            left.unlink()
        self._prune()

    def put(self, key: bytes, value: bytes) -> None:
        temporary = self._new / f".tmp{secrets.token_hex(6)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, value)
        finally:
            os.close(descriptor)
        path = self._path(key)
        try:
            temporary.rename(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(path)

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, key: bytes) -> None:
        self._path(key).unlink(missing_ok=True)

    def entries(self) -> Iterator[tuple[bytes, bytes | None]]:
        for folder, _, names in os.walk(self._data):
            for name in names:
                path = Path(folder) / name
                try:
                    key = bytes.fromhex("".join(path.parts[-5:]))
                except ValueError:
                    continue
                try:
                    yield key, path.read_bytes()
                except FileNotFoundError:
                    continue
                except OSError:
                    yield key, None

    def compact(self) -> None:
        return

    def close(self) -> None:
        os.close(self._lock)

    def _path(self, key: bytes) -> Path:
        text = key.hex()
        return self._data / text[0:2] / text[2:4] / text[4:6] / text[6:8] / text[8:]

    def _prune(self) -> None:
        for folder, _, _ in os.walk(self._data, topdown=False):
            if folder != str(self._data):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def open_half(path: str, kind: str, write_buffer_size: int | None) -> Half:
    """Given a directory and a kind of `define_spool`, open the half, making it where there is none."""
    return RocksHalf(Path(path), write_buffer_size) if kind == "RocksDB" else LocalHalf(Path(path))
