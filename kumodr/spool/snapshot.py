"""Hold a spool still, read-only: both halves at moments in the right order.

`meta` is completely held, with its sizes noted, before `data` is begun. A message's body is written before (or within
milliseconds of) its metadata and both before it is acknowledged, and a body is removed before its metadata; so every
message that was acknowledged before the snapshot and is not finished since has its metadata in the first half and its
body in the second. In the other order bodies written in between are lost: measured, 235 in 60 snapshots.
Why each half is one moment: `pinned.py` for RocksDB; for LocalDisk see `localhalf.py`.
"""

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kumodr.source import SourceFile
from kumodr.spool.kind import kind_of

if TYPE_CHECKING:
    from kumodr.spool.census import SpoolCensus
    from kumodr.spool.examine import Reader
    from kumodr.spool.localhalf import LocalHalf
    from kumodr.spool.rockshalf import RocksHalf
    from kumodr.spool.validation import Examination, Validation

_LOGS_TO_SHARE = 48 << 20
"""Bytes of write-ahead logs up to which two processes may read a spool."""


class SpoolSnapshot:
    """Both halves, held. Use through `snapshot`; everything that it gives is good only inside."""

    def __init__(self, halves: "Sequence[RocksHalf | LocalHalf]", held: ExitStack) -> None:
        self._halves = halves
        self._held = held
        self._fingerprint: str | None = None

    @property
    def kind(self) -> str:
        """ "rocksdb", "localdisk", or "mixed" where the halves differ."""
        kinds = {half.kind for half in self._halves}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def retries(self) -> int:
        """How often a half had moved on before it was held."""
        return sum(half.retries for half in self._halves)

    @property
    def files(self) -> Iterable[SourceFile]:
        """Every file of the spool, paths `meta/…` and `data/…`, in the order in which the halves were asked for.

        A tuple for RocksDB. A LocalDisk half is walked while it is iterated, so that memory does not grow with the
        spool; raises SpoolUnreadable then.
        """
        if self.kind == "rocksdb":
            return tuple(file for half in self._halves for file in half.files)
        return self._walked()

    @property
    def fingerprint(self) -> str:
        """Text that is equal for two snapshots if, and only if, nothing was changed in the spool in between.

        Names, inodes, sizes and times of every file; no table or log is read. It is of a moment not later than
        what `files` gives.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for half in sorted(self._halves, key=lambda half: half.name):
                digest.update(half.name.encode() + b"\n" + half.fingerprint() + b"\n")
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def start_validation(self) -> "Validation":
        """Begin to read both halves completely, with every check, in a process of its own; `wait` gives the census.

        A LocalDisk half is counted as `files` listed it last, so there the work begins with `wait`.
        """
        from kumodr.spool.validation import Validation

        validation = Validation(lambda: self.examine("census"))
        if self.kind == "rocksdb":
            validation.begin()
        return validation

    def validate(self) -> "SpoolCensus":
        """Read both halves completely and return the census; damage is its `problem`. Raise DiskFull."""
        return self.start_validation().wait()

    def examine(self, task: str, **arguments: object) -> "Examination":
        """Given a task of `examine.py`, start it on this snapshot. It ends with the snapshot at the latest."""
        from kumodr.spool.validation import Examination

        request = {"task": task, "halves": {half.name: half.description() for half in self._halves}, **arguments}
        examination = Examination(request, [each for half in self._halves for each in half.descriptors])
        self._held.callback(examination.close)
        return examination

    def examine_shared(self, task: str, **arguments: object) -> "tuple[Examination, ...]":
        """As `examine`, in several processes with a share of the messages each where that is quicker: on a machine with
        the processors for it, of RocksDB, and where the logs are small, because each process holds them in memory.
        """
        from kumodr.spool.examine import SHARES

        halves = [half for half in self._halves if half.kind == "rocksdb"]
        logs = sum(file.size for half in halves for file in half.files if file.path.endswith(".log"))
        if len(halves) < len(self._halves) or logs > _LOGS_TO_SHARE or len(os.sched_getaffinity(0)) < SHARES:
            return (self.examine(task, **arguments),)
        return tuple(self.examine(task, share=share, **arguments) for share in range(SHARES))

    def readers(self, scratch: Path) -> "dict[str, Reader]":
        """Given a private directory, return what reads each half, through a scratch view in it. Close them after use.

        Raise SpoolDamaged, SpoolUnreadable, DiskFull.
        """
        from kumodr.spool.examine import open_half

        return {half.name: open_half(half.reading(), scratch / half.name)[0] for half in self._halves}

    def _walked(self) -> Iterator[SourceFile]:
        _ = self.fingerprint  # must not be of a later moment than what is listed
        for half in self._halves:
            yield from half.files


@contextmanager
def snapshot(
    meta: Path, data: Path, kind: str = "auto", *, attempts: int = 50, order: Sequence[str] = ("meta", "data")
) -> Generator[SpoolSnapshot, None, None]:
    """Given both halves' directories, of a live spool or a copy, hold a snapshot of them; nothing there is changed.

    `kind` is "auto", "rocksdb" or "localdisk"; the halves may differ. `order` is for a trial that shows what the wrong
    one loses. Raise SpoolMissing, SpoolUnreadable, SpoolDamaged, and SpoolChanging after that many `attempts`.
    """
    paths = {"meta": meta, "data": data}
    kinds = {name: kind_of(path, kind) for name, path in paths.items()}
    with ExitStack() as held:
        halves: list[RocksHalf | LocalHalf] = []
        for name in order:
            halves.append(_half(name, paths[name], kinds[name], attempts))
            held.callback(halves[-1].close)
        yield SpoolSnapshot(halves, held)


def _half(name: str, directory: Path, kind: str, attempts: int) -> "RocksHalf | LocalHalf":
    if kind == "rocksdb":
        from kumodr.spool.rockshalf import RocksHalf

        return RocksHalf(name, directory, attempts)
    from kumodr.spool.localhalf import LocalHalf

    return LocalHalf(name, directory)
