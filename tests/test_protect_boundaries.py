"""Where a base and the stream meet: mail comes, waits and leaves at every moment of a base, and every end is replayed.

What counts as the base is what is restored from the vault, not what the test thinks of it. For every number at which a
restore could end, base and stream give exactly what the spool held when that number was read.
"""

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from protected import Kind, Protected, RocksServer, State, hurry
from streams import brought_back, content

from kumodr import errors
from kumodr.protect import shipper
from kumodr.protect.segment_writer import SegmentWriter
from kumodr.spool import localhalf, snapshot
from kumodr.vault.points import survey
from kumodr.vault.segment import head_of, name_of
from kumodr.vault.stream import listing, trust_of
from kumodr.vault.streamread import Reading

MOMENTS = ("before", "begun", "between", "stored", "joined", "committed", "after")


@pytest.fixture(params=["rocksdb", "localdisk"])
def protected(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Protected]:
    hurry(monkeypatch)
    monkeypatch.setattr("kumodr.protect.local_source._SHARE", 1.0)
    kind: Kind = request.param
    made = Protected(tmp_path, kind)
    real = SegmentWriter.seal

    def seal(writer: SegmentWriter, *words: Any, **options: Any) -> shipper.Shipment:
        done = real(writer, *words, **options)
        made.states[done.epoch, done.number] = made.copied()
        return done

    monkeypatch.setattr(SegmentWriter, "seal", seal)
    yield made
    made.close()


class Between:
    """Calls `now` when the metadata was held and the bodies were not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: Callable[[], None] = lambda: None
        half, files = snapshot._half, localhalf.LocalHalf.files

        def held(name: str, directory: Path, kind: str, attempts: int) -> Any:
            if name == "data" and kind == "rocksdb":
                self.now()
            return half(name, directory, kind, attempts)

        def walked(one: localhalf.LocalHalf) -> Iterator[Any]:
            if one.name == "data":
                self.now()
            yield from files.__get__(one)

        monkeypatch.setattr(snapshot, "_half", held)
        monkeypatch.setattr(localhalf.LocalHalf, "files", property(walked))


class Boundary:
    """One base, and what happens at one moment of it."""

    def __init__(self, protected: Protected, between: Between, seed: int) -> None:
        self.protected = protected
        self.between = between
        self.seed = seed
        self.happened = 0
        self.comes_and_goes: tuple[str, str] | None = None

    def prepare(self) -> None:
        """Messages that are there, and everything up to now in the vault."""
        for key in list(self.protected.state[0]):
            self.protected.finish_message(int.from_bytes(key, "big"))
        for number in range(1, 7):
            self.protected.accept(number, self.seed + number)
        self.protected.round()

    def happens(self, *, read: bool) -> None:
        """A message comes in, one is put off, one leaves, one comes and leaves."""
        protected, seed = self.protected, self.seed + 100
        self.happened += 1
        protected.accept(20, seed)
        protected.put_off(1, seed + 1)
        protected.finish_message(2)
        protected.accept(21, seed + 2)
        protected.finish_message(21)
        if read:
            protected.round(wait=0.0 if protected.store.broken else 5.0)

    def base(self, moment: str, *, read: bool, until: str = "after") -> None:
        """Take a base; `until` names the moment after which kumodr is killed, "after" where it is not."""

        def meanwhile(now: str) -> None:
            if self.comes_and_goes is not None and now == self.comes_and_goes[0]:
                self.protected.accept(23, self.seed + 400)
            if self.comes_and_goes is not None and now == self.comes_and_goes[1]:
                self.protected.finish_message(23)
            if now == moment:
                self.happens(read=read)
            if now == until:
                raise KilledError

        self.between.now = lambda: meanwhile("between")
        due = self.protected.stream.base_due()
        assert due is not None
        meanwhile("before")
        try:
            self.protected.take_base(due.epoch, due.begin, meanwhile)
        except KilledError:
            self.protected.crash()
            self.protected.store.broken = None
        else:
            until = ""
            meanwhile("after")
        finally:
            self.between.now = lambda: None
        assert self.happened == 1

    def go_on(self, *, rounds: int = 0) -> None:
        """More mail, more rounds."""
        protected = self.protected
        protected.store.broken = None
        protected.round()
        protected.finish_message(3)
        protected.accept(30, self.seed + 300)
        protected.round()
        protected.put_off(20, self.seed + 301) if (20).to_bytes(16, "big") in protected.state[0] else None
        protected.finish_message(1)
        protected.round()
        for number in range(rounds):
            protected.accept(50 + number, self.seed + number)
            protected.round()

    def replayed(self, folder: Path) -> int:
        """Restore the base, and compare every state that it and the stream lead to; return how many there were."""
        made = self.protected.made
        point = max(survey(made.vault, {}).points, key=lambda each: each.sequence)
        join = point.stream
        assert join is not None
        brought_back(made, folder, wanted=point.id)
        base: State = content(folder / "spool")
        shutil.rmtree(folder)
        found, trust, ends = listing(made.vault, "primary", join.epoch), trust_of(made.vault, {}), 0
        for end in range(join.whole, found.newest + 1):
            name = name_of("primary", join.epoch, end, end)
            if head_of(made.vault.store.get(name, 1 << 30), name, made.vault.id).partial:
                continue
            state = dict(base[0]), dict(base[1])
            reading = Reading(made.vault, found, join.begin, end, trust, made.identities)
            for segment in reading:
                changes = segment.content.unpacked()
                for kept, changed in zip(state, (changes.meta, changes.data), strict=True):
                    for key, value in changed.items():
                        if value is None:
                            kept.pop(key, None)
                        else:
                            kept[key] = value
            assert not reading.problems
            assert state == self.protected.states[join.epoch, end], f"number {end}, joined {join}"
            ends += 1
        return ends


class KilledError(Exception):
    """kumodr was killed."""


def test_every_boundary_is_replayed(protected: Protected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    between = Between(monkeypatch)
    protected.round()
    for number, moment in enumerate(MOMENTS):
        for read in (True, False):
            boundary = Boundary(protected, between, 10_000 * (2 * number + read))
            boundary.prepare()
            protected.time += timedelta(days=1)
            boundary.base(moment, read=read)
            boundary.go_on()
            assert boundary.replayed(tmp_path / "back") >= 3
    assert brought_back(protected.made, tmp_path / "back").problems == ()
    assert content(tmp_path / "back" / "spool") == protected.copied()


def test_what_comes_at_one_moment_of_a_base_and_leaves_at_another(
    protected: Protected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round in between saw it, but the base may hold it."""
    between = Between(monkeypatch)
    protected.round()
    for first, comes in enumerate(MOMENTS):
        for last, goes in enumerate(MOMENTS[first:]):
            boundary = Boundary(protected, between, 10_000 * (10 * first + last))
            boundary.prepare()
            protected.time += timedelta(days=1)
            boundary.comes_and_goes = (comes, goes)
            boundary.base("after", read=False)
            boundary.go_on()
            assert boundary.replayed(tmp_path / "back") >= 3


@pytest.mark.parametrize("until", ["stored", "joined", "committed", "after"])
@pytest.mark.parametrize("read", [True, False])
def test_the_vault_takes_bases_and_no_segments(
    protected: Protected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: str, read: bool
) -> None:
    """The segments before the base wait in memory, or are lost with the process; their numbers are given again."""
    between = Between(monkeypatch)
    protected.round()
    first = Boundary(protected, between, 0)
    first.prepare()
    first.base("begun", read=True)
    first.go_on()
    for number, moment in enumerate(MOMENTS):
        boundary = Boundary(protected, between, 10_000 * (number + 1))
        boundary.prepare()
        protected.store.broken = errors.StoreUnavailable("the vault takes no segments")
        for later in range(3):
            protected.accept(40 + later, boundary.seed + later)
            protected.round(wait=0)
        protected.time += timedelta(days=1)
        if MOMENTS.index(moment) > MOMENTS.index(until):
            break
        boundary.base(moment, read=read, until=until)
        boundary.go_on(rounds=6)
        ends = boundary.replayed(tmp_path / "back")
        if until == "after" or isinstance(protected.server, RocksServer):  # else another epoch was begun
            assert ends >= 3
