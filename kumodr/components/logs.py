"""Delivery logs as a component: finished segments, and the readable part of the open ones."""

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding, Verdict
from kumodr.ledger.segments import segments_below
from kumodr.plan.model import LogsPlan, Plan
from kumodr.source import Capture, CaptureFacts, OnDisk, SourceFile, identity_of

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class LogsComponent:
    """Every configured log directory, each restored below a folder of its own: `1-kumomta`, `2-bounces`."""

    name = "logs"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan: LogsPlan = plan.components.logs or LogsPlan(())
        self._clock = clock

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Give every segment by the size it has now.

        A segment is only appended to until it loses its write bits (facts §3.2), so a prefix of an open one is what
        its reader would have seen; a finished one never changes and is read once. One that is deleted meanwhile is
        left out: it was older than the site keeps.
        """
        counts = {"segments": 0, "finished": 0, "bytes": 0}

        def files() -> Iterator[SourceFile]:
            for number, directory in enumerate(self._plan.directories, 1):
                root = Path(directory)
                for file in _segments(root, f"{number}-{root.name}"):
                    counts["segments"] += 1
                    counts["finished"] += not file.mode & _WRITABLE
                    counts["bytes"] += file.size
                    yield file

        yield Capture(files=files(), facts=lambda: CaptureFacts(clear=dict(counts), sealed={}))

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/logs`, read every segment leniently and count records by type."""
        from kumodr.ledger.records import parse
        from kumodr.ledger.segments import read_records

        segments, size, types = 0, 0, dict[str, int]()
        warnings: list[str] = []
        for path in sorted(path for path in restored.rglob("*") if path.is_file()):
            segments += 1
            size += path.stat().st_size
            records = read_records(path)
            for line in records:
                record = parse(line)
                kind = record.type if record is not None else "not understood"
                types[kind] = types.get(kind, 0) + 1
            if records.problem is not None:
                warnings.append(f"{path.relative_to(restored)}: {records.problem}")
        return Verdict(None, {"segments": segments, "bytes": size, "records": types}, tuple(warnings))

    def health(self) -> tuple[Finding, ...]:
        """Say for each directory whether it can be read and how old its newest segment is."""
        found: list[Finding] = []
        for directory in self._plan.directories:
            try:
                files = list(_segments(Path(directory), ""))
            except errors.LogUnreadable as error:
                found.append(Finding("bad", error.what, error.remedy))
                continue
            if not files:
                found.append(
                    Finding("warning", f"{directory} holds no delivery log yet", "check log_dir in KumoMTA's policy")
                )
                continue
            age = self._clock().timestamp() - max(file.mtime_ns for file in files) / 1e9
            found.append(Finding("good", f"{directory}: {len(files)} segments, newest written {age:.0f} s ago"))
        return tuple(found)


def _segments(root: Path, prefix: str) -> Iterator[SourceFile]:
    """Yield every regular file below a log directory; dot-files are not KumoMTA's. Raise LogUnreadable."""
    for relative, status in segments_below(root):
        path = os.path.join(root, relative)
        if not os.access(path, os.R_OK):
            raise errors.LogUnreadable(f"the log segment {path} cannot be read")
        yield SourceFile(
            path=f"{prefix}/{relative}".lstrip("/"),
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size,
            content=OnDisk(path),
            identity=identity_of(status),
        )
