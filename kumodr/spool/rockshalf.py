"""One half of a spool snapshot, of kind RocksDB: its files as they are to be stored."""

import base64
import stat
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr.source import Held, Pinned, SourceFile, identity_of
from kumodr.spool.pinned import PinnedDatabase, PinnedFile, pin

if TYPE_CHECKING:
    from kumodr.spool.live import LiveFiles


class RocksHalf:
    """A pinned database as `name` ("meta" or "data") of a spool. Close it after use."""

    kind = "rocksdb"

    def __init__(self, name: str, directory: Path, attempts: int) -> None:
        self.name = name
        self._pinned: PinnedDatabase = pin(directory, attempts=attempts)

    @property
    def retries(self) -> int:
        """How often the database had moved on before it was held."""
        return self._pinned.retries

    def close(self) -> None:
        """Let go of the descriptors."""
        self._pinned.close()

    def fingerprint(self) -> bytes:
        """Return what differs as soon as anything in the database does, without reading a table or a log."""
        held = self._pinned
        lines = [f"rocksdb {held.status.st_mode} {held.status.st_uid} {held.status.st_gid}"]
        lines += [f"{file.name} {identity_of(file.status)}" for file in (held.manifest, *held.tables, *held.logs)]
        lines += [f"{file.name} {data.hex()}" for file, data in held.small]
        return "\n".join(lines).encode()

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """The directory, then every file that belongs to the database, CURRENT last; paths begin with the name."""
        held = self._pinned
        directory = SourceFile(
            self.name,
            kind="directory",
            mode=stat.S_IMODE(held.status.st_mode),
            uid=held.status.st_uid,
            gid=held.status.st_gid,
            mtime_ns=held.status.st_mtime_ns,
        )
        big = [self._source(file, Pinned(file.descriptor)) for file in (*self._live_tables, *held.logs, held.manifest)]
        return (directory, *big, *(self._source(file, Held(data), len(data)) for file, data in held.small))

    def description(self) -> dict[str, Any]:
        """Return what the examining process needs to build a view of exactly what is stored."""
        held = self._pinned
        files = (*self._live_tables, *held.logs, held.manifest)
        return {
            "kind": "rocksdb",
            "files": [[file.name, file.descriptor, file.status.st_size] for file in files],
            "small": {file.name: base64.b64encode(data).decode() for file, data in held.small},
            "live": None if self._live is None else self._live.oldest_log,
        }

    def reading(self) -> dict[str, Any]:
        """Return what reading it needs: the same."""
        return self.description()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that the examining process needs."""
        held = self._pinned
        return tuple(file.descriptor for file in (*self._live_tables, *held.logs, held.manifest))

    @cached_property
    def _live(self) -> "LiveFiles | None":
        from kumodr.spool.live import live_files

        manifest = self._pinned.manifest
        return live_files(Pinned(manifest.descriptor), manifest.status.st_size)

    @cached_property
    def _live_tables(self) -> tuple[PinnedFile, ...]:
        tables = self._pinned.tables
        return tables if self._live is None else tuple(file for file in tables if self._live.holds(file.name))

    def _source(self, file: PinnedFile, content: Held | Pinned, size: int | None = None) -> SourceFile:
        return SourceFile(
            f"{self.name}/{file.name}",
            mode=stat.S_IMODE(file.status.st_mode),
            uid=file.status.st_uid,
            gid=file.status.st_gid,
            mtime_ns=file.status.st_mtime_ns,
            size=file.status.st_size if size is None else size,
            content=content,
            identity=identity_of(file.status),
        )
