"""The union of what is readable in a damaged spool and what a copy has: per message the newest, each with its origin.

For every id and half one of these holds:
- the damaged spool says what is newest: it counts, for it is never behind a copy of itself;
- the damaged spool says, in either half, that it was deleted: the message was finished, and nothing brings it back;
- it says nothing, and nothing that cannot be read there may have held anything about that id: it was finished too;
- it says nothing, but something unreadable may have: the copy counts. What it has too much, reconciling takes out.
A log may have lost its end without a trace. In it were messages younger than the youngest that is known, so for
those the copy counts as well.
So the result has every message that either of the two has readable, except those that are known to be finished.
"""

import json
import os
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.durable import write_file
from kumodr.recover.evidence import FinishedIds
from kumodr.recover.target import MARKER
from kumodr.source import Progress
from kumodr.spool.identifier import created
from kumodr.spool.kind import Kind, kind_of
from kumodr.spool.reader import Spool, open_spool
from kumodr.spool.salvage.entry import FROM_COPY, NOTHING, SURELY_FROM_COPY, Entry, Unknown
from kumodr.spool.salvage.local import LocalSource
from kumodr.spool.salvage.newest import Newest
from kumodr.spool.salvage.rocks import RocksSource
from kumodr.spool.salvage.target import write_half

HALVES = ("meta", "data")
ORIGINS = "origins.csv"
"""Where each message comes from, beside the result."""

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_BESIDE = timedelta(minutes=1)
"""Messages are written by several threads: not quite in the order of their ids."""


@dataclass(frozen=True)
class Salvaged:
    """How many whole messages there are, by origin; ids of what has no body or no metadata; what is unreadable."""

    messages: int
    from_spool: int
    from_copy: int
    from_both: int
    without_body: tuple[str, ...]
    without_metadata: tuple[str, ...]
    finished: int
    unknown: dict[str, tuple[Unknown, ...]]


class _Half:
    """One half of the damaged spool, with what is newest in it and in the copy."""

    def __init__(self, name: str, directory: Path, kind: Kind, copy: Spool | None, scratch: Path) -> None:
        self.directory = directory
        self.kind = kind
        self._name = name
        self._copy = copy
        self._source: RocksSource | LocalSource = (
            RocksSource(directory) if self.kind == "rocksdb" else LocalSource(directory, metadata=name == "meta")
        )
        self._younger = 0
        self.newest = Newest(scratch / f"{name}.sqlite")

    @property
    def unknown(self) -> tuple[Unknown, ...]:
        return tuple(self._source.unknown)

    @property
    def copy_number(self) -> int:
        """The number of the source that is the copy."""
        return len(self._source.sources)

    def look(self, now: datetime, progress: Progress) -> None:
        for number, source in enumerate(self._source.sources):
            progress(f"reading {self._name}", number, self.copy_number)
            self.newest.note(number, enumerate(self._of_source(source)))
        if self._copy is not None:
            progress(f"reading {self._name} of the copy", self.copy_number, self.copy_number)
            self.newest.note(self.copy_number, self._lost(now))
        if self._younger:
            text = f"its end is lost: the copy has {self._younger:,} messages that are younger than its youngest"
            self._source.unknown.append(Unknown(text, NOTHING))

    def chosen(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every id with its newest value, source by source: each is read once more, in the same order."""
        for number, source in enumerate(self._source.sources):
            pairs = ((each.key, each.value or b"") for each in self._of_source(source))
            yield from _picked(pairs, self.newest.chosen(number))
        if self._copy is not None:
            yield from _picked(self._of_copy(), self.newest.chosen(self.copy_number))

    def close(self) -> None:
        self._source.close()
        self.newest.close()

    def _of_source(self, source: Any) -> Iterator[Entry]:
        return self._source.entries(source)

    def _of_copy(self) -> Iterator[tuple[bytes, bytes]]:
        if self._copy is None:
            return iter(())
        found = self._copy.entries() if self._name == "meta" else self._copy.bodies()
        return ((bytes.fromhex(identifier), value) for identifier, value in found)

    def _lost(self, now: datetime) -> Iterator[tuple[int, Entry]]:
        """Yield what the copy has for ids of which the damaged spool may have lost something, each with its place.

        A body never changes: where a file's size is not that of the copy's, which was proved by its hash, it was cut.
        """
        unknown = self.unknown
        births = (created(key) for key in self.newest.ids())
        youngest = max((born for born in births if born is not None and born <= now), default=_LONG_AGO) - _BESIDE
        for place, (key, value) in enumerate(self._of_copy()):
            known = self.newest.of(key)
            if self.kind == "localdisk" and self._name == "data" and known is not None and known[1] != len(value):
                yield place, Entry(key, SURELY_FROM_COPY, value)
            elif any(each.touches(key) for each in unknown):
                yield place, Entry(key, FROM_COPY, value)
            elif known is None and (created(key) or _LONG_AGO) > youngest:
                self._younger += 1
                yield place, Entry(key, FROM_COPY, value)


def _picked(entries: Iterator[tuple[bytes, bytes]], places: Iterator[int]) -> Iterator[tuple[bytes, bytes]]:
    """Given entries, and in ascending order the places of those that are wanted, yield them."""
    numbered = enumerate(entries)
    for place in places:
        for number, entry in numbered:
            if number == place:
                yield entry
                break
        else:
            raise errors.SpoolChanging(
                "the damaged spool changed while it was read", remedy="stop the mail server on it"
            )


@contextmanager
def _halves(damaged: Mapping[str, Path], kind: str, copy: Spool | None) -> Generator[dict[str, _Half]]:
    with ExitStack() as held:
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kumodr-salvage-")))
        halves: dict[str, _Half] = {}
        found = _kind(damaged, kind)
        for name in HALVES:
            halves[name] = _Half(name, damaged[name], found, copy, scratch)
            held.callback(halves[name].close)
        yield halves


def _kind(damaged: Mapping[str, Path], kind: str) -> Kind:
    """Return the kind of either half: one of them may be gone. Raise SpoolMissing where both are."""
    try:
        return kind_of(damaged["meta"], kind)
    except errors.SpoolMissing:
        return kind_of(damaged["data"], kind)


def salvage(
    meta: Path,
    data: Path,
    copy: Path | None,
    target: Path | None,
    *,
    kind: str = "auto",
    clock: Clock,
    progress: Progress,
) -> Salvaged:
    """Given a damaged spool's halves and a copy's folder, write the union to `target/spool`; None only looks.

    `target` is an empty directory. The evidence of what was seen deleted and `origins.csv` stand beside it, the marker
    of a restored copy last; the damaged spool is only read. Raise SpoolMissing, SpoolUnreadable, SpoolDamaged for the
    copy, DiskFull.
    """
    with ExitStack() as held:
        source = held.enter_context(open_spool(copy / "meta", copy / "data")) if copy is not None else None
        halves = held.enter_context(_halves({"meta": meta, "data": data}, kind, source))
        for half in halves.values():
            half.look(clock(), progress)
        one, other = (half.newest for half in halves.values())
        one.finish(other.deleted())
        other.finish(one.deleted())
        found = _counted(halves)
        if target is not None:
            _write(target, halves, found, clock, progress)
        return found


def _write(target: Path, halves: Mapping[str, _Half], found: Salvaged, clock: Clock, progress: Progress) -> None:
    try:
        (target / "spool").mkdir(mode=0o755, parents=True)
    except OSError as error:
        raise errors.TargetNotEmpty(
            f"{target} cannot be used: {error.strerror}", remedy="name a new directory"
        ) from error
    for number, (name, half) in enumerate(halves.items()):
        progress(f"writing {name}", number, len(halves))
        like = half.directory if half.directory.is_dir() else half.directory.parent
        write_half(target / "spool" / name, half.kind, half.chosen(), like)
    with FinishedIds(target) as finished:
        finished.add(halves["meta"].newest.deleted())
    _write_origins(target / ORIGINS, halves)
    document = {"salvaged": text_of_time(clock()), "messages": found.messages}
    write_file(target / MARKER, json.dumps(document, indent=2).encode() + b"\n")


def _write_origins(path: Path, halves: Mapping[str, _Half]) -> None:
    """Write of every message where either half of it comes from, as CSV; nothing stands for a half that is lost."""
    meta, data = halves["meta"], halves["data"]

    def word(half: _Half, source: int | None) -> str:
        return "" if source is None else "copy" if source == half.copy_number else "spool"

    try:
        with open(path, "x") as file:
            file.write("id,metadata,body\n")
            for key, (of_meta, of_data) in _joined(meta.newest.present(), data.newest.present()):
                file.write(f"{key.hex()},{word(meta, of_meta)},{word(data, of_data)}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise errors.DiskFull(f"{path} cannot be written: {error.strerror}") from error


def _counted(halves: Mapping[str, _Half]) -> Salvaged:
    """Join both halves by id, which both yield in order."""
    meta, data = halves["meta"], halves["data"]
    origin = {"from_spool": 0, "from_copy": 0, "from_both": 0}
    without_body: list[str] = []
    without_metadata: list[str] = []
    for key, (of_meta, of_data) in _joined(meta.newest.present(), data.newest.present()):
        if of_meta is None:
            without_metadata.append(key.hex())
        elif of_data is None:
            without_body.append(key.hex())
        else:
            copies = (of_meta == meta.copy_number) + (of_data == data.copy_number)
            origin[("from_spool", "from_both", "from_copy")[copies]] += 1
    finished = sum(1 for _ in meta.newest.deleted())
    unknown = {name: half.unknown for name, half in halves.items()}
    messages = sum(origin.values())
    return Salvaged(
        messages,
        **origin,
        without_body=tuple(without_body),
        without_metadata=tuple(without_metadata),
        finished=finished,
        unknown=unknown,
    )


def _joined(
    meta: Iterator[tuple[bytes, int]], data: Iterator[tuple[bytes, int]]
) -> Iterator[tuple[bytes, tuple[int | None, int | None]]]:
    """Given ids with sources, in order, yield every id with its source in both halves."""
    one, other = next(meta, None), next(data, None)
    while one is not None or other is not None:
        key = min(each[0] for each in (one, other) if each is not None)
        here = one[1] if one is not None and one[0] == key else None
        there = other[1] if other is not None and other[0] == key else None
        yield key, (here, there)
        one = next(meta, None) if here is not None else one
        other = next(data, None) if there is not None else other
