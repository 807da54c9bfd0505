"""The ledger as a component: each finished segment of the delivery logs as a Parquet file, ready to be asked.

It follows `components.logs` of the plan. A finished segment never changes, so it is converted once and kept in the
state directory under its identity until the segment is gone. Losing that directory costs converting again.
"""

import hashlib
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding, Verdict
from kumodr.plan.model import LogsPlan, Plan
from kumodr.source import Capture, CaptureFacts, OnDisk, SourceFile, identity_of

FOLDER = "ledger"
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_MEMORY = "128MiB"
"""For DuckDB, and one thread: conversion runs beside a mail server."""

_READ_AT_ONCE = 256
_COUNTS = """SELECT coalesce(type, 'not understood'), count(*), bit_xor(hash(rows)) FROM read_parquet(?) rows
  GROUP BY 1 ORDER BY 1"""
"""The hash is of whole rows: every column of every file is read."""

_FORM = "1"
"""Raised when the columns change: then everything is converted again."""


@dataclass(frozen=True)
class _Finished:
    """A finished segment: where it is, its name as the logs component stores it, its status and its Parquet file."""

    path: Path
    name: str
    status: os.stat_result
    parquet: str
    kept: Path


class LedgerComponent:
    """A Parquet file for each finished segment of every log directory, restored below `ledger/`."""

    name = "ledger"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._logs: LogsPlan = plan.components.logs or LogsPlan(())
        self._folder = Path(plan.state) / FOLDER

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Give the Parquet file of every finished segment, converting those that are new when it is asked for.

        Raise LogUnreadable, ComponentUnavailable.
        """
        finished = list(self._finished())
        fingerprint = hashlib.sha256("".join(each.kept.name for each in finished).encode()).hexdigest()
        problems: list[str] = []
        stored: list[int] = []

        def files() -> Iterator[SourceFile]:
            self._convert([each for each in finished if not each.kept.exists()], problems)
            for each in finished:
                try:
                    status = os.stat(each.kept)
                except FileNotFoundError:
                    continue
                stored.append(status.st_size)
                yield SourceFile(
                    path=each.parquet,
                    mode=0o600,
                    uid=status.st_uid,
                    gid=status.st_gid,
                    mtime_ns=each.status.st_mtime_ns,
                    size=status.st_size,
                    content=OnDisk(str(each.kept)),
                    identity=identity_of(status),
                )

        def facts() -> CaptureFacts:
            self._clean({each.kept.name for each in finished})
            return CaptureFacts(
                {"parquet_files": len(stored), "bytes": sum(stored)}, {"damaged_segments": problems[:1000]}
            )

        yield Capture(files(), facts, fingerprint)

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/ledger`, read every file to its end and count the records of each type."""
        import duckdb

        from kumodr.ledger.database import first_line, open_database

        names = sorted(path.name for path in restored.glob("*.parquet"))
        counts: list[tuple[str, int]] = []
        try:
            with open_database([restored]) as database:
                place = database.alias(restored)
                for start in range(0, len(names), _READ_AT_ONCE):
                    paths = [str(place / name) for name in names[start : start + _READ_AT_ONCE]]
                    counts += [(kind, count) for kind, count, _ in database.rows(_COUNTS, [paths])]
        except duckdb.Error as error:
            return Verdict(f"the ledger cannot be read: {first_line(error)}")
        types: dict[str, int] = {}
        for kind, count in counts:
            types[kind] = types.get(kind, 0) + count
        return Verdict(None, {"parquet_files": len(names), "rows": types})

    def health(self) -> tuple[Finding, ...]:
        """Say how many finished segments there are, and how many are not converted yet."""
        try:
            finished = list(self._finished())
        except errors.LogUnreadable as error:
            return (Finding("bad", error.what, error.remedy),)
        waiting = sum(not each.kept.exists() for each in finished)
        return (Finding("good", f"ledger: {len(finished)} finished segments, {waiting} not converted yet"),)

    def _finished(self) -> Iterator[_Finished]:
        from kumodr.ledger.segments import segments_below

        for number, directory in enumerate(self._logs.directories, 1):
            root = Path(directory)
            for relative, status in segments_below(root):
                if not status.st_mode & _WRITABLE:
                    name = f"{number}-{root.name}/{relative}"
                    kept = hashlib.sha256(f"{_FORM}\n{name}\n{identity_of(status)}".encode()).hexdigest()[:40]
                    yield _Finished(root / relative, name, status, parquet_name(name), self._folder / kept)

    def _convert(self, wanted: Sequence[_Finished], problems: list[str]) -> None:
        """Convert segments, each to a file that is whole or not there. One that vanishes meanwhile is left out."""
        if not wanted:
            return
        from kumodr.durable import sync_directory, sync_file
        from kumodr.ledger.convert import Segment, convert
        from kumodr.ledger.database import open_database

        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            new, folders = self._folder / ".new", {each.path.parent for each in wanted}
            with open_database([self._folder, *folders], memory=_MEMORY, threads=1) as database:
                for each in wanted:
                    path = database.alias(each.path.parent) / each.path.name
                    try:
                        problems += convert(database, [Segment(path, each.name, each.status.st_size)], new)
                    except errors.LogUnreadable:
                        if each.path.exists():
                            raise
                        continue
                    sync_file(new)
                    new.rename(each.kept)
            sync_directory(self._folder)
        except (errors.DiskFull, OSError) as error:
            what = error.what if isinstance(error, errors.DiskFull) else f"{self._folder}: {error}"
            raise errors.ComponentUnavailable(
                f"the ledger cannot be made: {what}",
                remedy="free space there and for temporary files; the logs themselves are stored",
            ) from error

    def _clean(self, wanted: set[str]) -> None:
        """Take away what belongs to segments that are gone, and what an interrupted conversion left."""
        try:
            for name in os.listdir(self._folder):
                if name not in wanted:
                    os.unlink(self._folder / name)
        except OSError:
            return


def parquet_name(segment: str) -> str:
    """Given a segment's name, like `1-kumomta/20261123-215747.6_recv`, return its Parquet file's: sorted by time."""
    last = "".join(each if each.isalnum() or each in "-_." else "_" for each in segment.rpartition("/")[2])[:80]
    return f"{last}-{hashlib.sha256(segment.encode()).hexdigest()[:12]}.parquet"
