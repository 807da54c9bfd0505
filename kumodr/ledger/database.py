"""DuckDB, opened so that what it reads can do no harm: bounded, without extensions, network or other files.

Everything goes into a private directory: the database, what does not fit in memory, temporary files. Delivery logs are
other people's text, and file names are the operator's; both come in as parameters, never as SQL.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "448MiB"
"""What DuckDB may hold; what is more goes to its directory on disk. A few buffers come on top."""

THREADS = 2

_PREFIX = "kumodr-ledger-"


class Database:
    """A DuckDB of this process alone. `directory` is private, and everything in it goes when this is closed."""

    def __init__(self, connection: "DuckDBPyConnection", directory: Path) -> None:
        self.directory = directory
        self._connection = connection
        self._aliases: dict[Path, Path] = {}

    def alias(self, directory: Path) -> Path:
        """Given a directory that may be read, return a path to it that DuckDB cannot take for a pattern."""
        link = self._aliases.get(directory)
        if link is None:
            link = self.directory / f"directory-{len(self._aliases)}"
            link.symlink_to(directory.resolve(), target_is_directory=True)
            self._aliases[directory] = link
        return link

    def run(self, sql: str, parameters: Iterable[object] = ()) -> "DuckDBPyConnection":
        """Given a statement of ours and values for its `?`, run it. Raise DiskFull, and duckdb.Error for the rest."""
        return self._run(self._connection, sql, parameters)

    def _run(self, connection: "DuckDBPyConnection", sql: str, parameters: Iterable[object]) -> "DuckDBPyConnection":
        import duckdb

        try:
            return connection.execute(sql, list(parameters))
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            if isinstance(error, duckdb.IOException) and "space left" not in str(error):
                raise
            raise errors.DiskFull(
                f"DuckDB needs more room than {self.directory} has: {first_line(error)}",
                remedy="free space there, or point TMPDIR elsewhere, then run this again",
            ) from error

    def rows(self, sql: str, parameters: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Given a query, return all of its rows; for results that are known to be small."""
        return self.run(sql, parameters).fetchall()

    def each(self, sql: str, parameters: Iterable[object] = ()) -> Generator[tuple[Any, ...]]:
        """Given a query, yield its rows, a few thousand in memory at a time. Other statements may run meanwhile."""
        cursor = self._run(self._connection.cursor(), sql, parameters)
        while rows := cursor.fetchmany(4096):
            yield from rows

    def value(self, sql: str, parameters: Iterable[object] = ()) -> Any:
        """Given a query, return the first value of its first row."""
        row = self.run(sql, parameters).fetchone()
        return None if row is None else row[0]


@contextmanager
def open_database(readable: Iterable[Path], *, memory: str = MEMORY, threads: int = THREADS) -> Generator[Database]:
    """Given the directories that may be read, give a database. It reads there and in its own directory only.

    Its settings are locked: no extension is loaded or fetched, and nothing that a query says can change that.
    Raise DiskFull.
    """
    import duckdb

    _clean()
    directory, lock = _private_directory()
    try:
        connection = duckdb.connect(
            str(directory / "ledger.duckdb"),
            config={
                "memory_limit": memory,
                "threads": threads,
                "temp_directory": str(directory / "spilled"),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
            },
        )
        try:
            allowed = ", ".join(literal(f"{each.resolve()}/") for each in (directory, *readable))
            connection.execute(f"SET allowed_directories = [{allowed}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET enable_progress_bar = false")
            connection.execute("SET lock_configuration = true")
            yield Database(connection, directory)
        except RuntimeError as error:
            # DuckDB looks for signals while it works, and turns the interrupt of a handler into this.
            if str(error) != "Query interrupted":
                raise
            raise KeyboardInterrupt from None
        finally:
            connection.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _private_directory() -> tuple[Path, int]:
    """Make a directory, mode 0700, and hold its lock: nobody else takes it for one that was left behind."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if directory.exists():
                return directory, lock
            os.close(lock)


def _clean() -> None:
    """Take away what killed processes of this user left behind: addresses of other people's mail are in it."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


def literal(text: str) -> str:
    """Given any text, return it as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def globs(path: str) -> bool:
    """Given a path, say whether DuckDB would take it for a pattern."""
    return any(mark in path for mark in "*?[]{}")


def first_line(error: Exception) -> str:
    """Given DuckDB's error, return its first line, bounded."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
