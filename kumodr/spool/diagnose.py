"""What is the matter with a spool, found without touching it: the evidence, and how many messages can be read.

Four witnesses, each of which sees what the others do not: RocksDB itself, opening a scratch copy with every check (it
stops at the first damage); every block and log record by its own checksum (this does not stop); what KumoMTA would do
with each message; and what RocksDB wrote into its own `LOG`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kumodr import errors
from kumodr.clock import Clock
from kumodr.source import Progress
from kumodr.spool.openfile import open_read_only
from kumodr.spool.salvage.salvage import Salvaged, salvage
from kumodr.spool.vet import (
    DAMAGED,
    LOG_DAMAGED,
    NO_BODY,
    NO_CURRENT,
    NO_META,
    UNPARSABLE,
    Vetted,
    finding,
    vet_and_count,
)

_ERROR = re.compile(r"Corruption|IO error|checksum mismatch|\[ERROR\]|No space left")
_TAIL = 1 << 20
_LATEST = 5
_OF_THE_WHOLE = (DAMAGED, LOG_DAMAGED, NO_CURRENT)


@dataclass(frozen=True)
class Evidence:
    """One thing that speaks against a spool: who says so, and what."""

    witness: str
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """`verdict` is "sound" or "damaged"; `readable` counts the messages whose both parts can be read.

    `told` is what does not decide: errors of the past, and messages of one part, as every killed server leaves some.
    """

    verdict: Literal["sound", "damaged"]
    readable: int
    evidence: tuple[Evidence, ...]
    told: tuple[Evidence, ...]


def diagnose(meta: Path, data: Path, kind: str, clock: Clock, progress: Progress) -> Diagnosis:
    """Given both halves' directories, return the diagnosis. Nothing is changed.

    Raise SpoolMissing where neither half is there, SpoolUnreadable, SpoolChanging, DiskFull.
    """
    found = salvage(meta, data, None, None, kind=kind, clock=clock, progress=progress)
    vetted = _vetted(meta, data, kind, clock)
    evidence = [*_of_blocks(found), *_of_kumomta(vetted)]
    told = [*_incomplete(vetted), *(each for half in (meta, data) for each in _of_log(half))]
    return Diagnosis("damaged" if evidence else "sound", found.messages, tuple(evidence), tuple(told))


def _of_blocks(found: Salvaged) -> Iterator[Evidence]:
    for half, unknown in found.unknown.items():
        for each in unknown:
            yield Evidence("blocks", f"{half}: {each.text}")


def _vetted(meta: Path, data: Path, kind: str, clock: Clock) -> Vetted:
    try:
        return vet_and_count(meta, data, kind, clock())
    except errors.SpoolMissing as error:
        return Vetted((finding(DAMAGED, error.what),))


def _of_kumomta(vetted: Vetted) -> Iterator[Evidence]:
    for each in vetted.findings:
        if each.reason in _OF_THE_WHOLE:
            yield Evidence("RocksDB", f"{each.reason}: {each.detail}; {each.effect}")
    yield from _counted(vetted, UNPARSABLE)


def _incomplete(vetted: Vetted) -> Iterator[Evidence]:
    yield from _counted(vetted, NO_BODY)
    yield from _counted(vetted, NO_META)


def _counted(vetted: Vetted, reason: str) -> Iterator[Evidence]:
    group = [each for each in vetted.findings if each.reason == reason]
    if group:
        yield Evidence("messages", f"{len(group):,} × {reason}: {group[0].effect}")


def _of_log(half: Path) -> Iterator[Evidence]:
    """Yield the latest errors in RocksDB's own LOG: of a rotated one too, for every start begins a new one."""
    try:
        rotated = sorted(name for name in os.listdir(half) if name.startswith("LOG.old."))
    except OSError:
        return
    for name in ("LOG", *rotated[-1:]):
        lines = [line for line in _tail(half / name).splitlines() if _ERROR.search(line)]
        for line in lines[-_LATEST:]:
            yield Evidence(f"{half.name}/{name}", " ".join(line.split())[:300])


def _tail(path: Path) -> str:
    try:
        descriptor = open_read_only(str(path))
    except OSError:
        return ""
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, _TAIL, max(0, size - _TAIL)).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
