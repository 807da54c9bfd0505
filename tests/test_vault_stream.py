"""Which segments there are, how far they lead, and in what order they are read: for any names and any damage."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import Stream
from vaults import START, Bench, bench

from kumodr import errors
from kumodr.vault import streamread
from kumodr.vault.open import Vault
from kumodr.vault.stream import Listing, Part, epochs, extent, listing, part_of_name, path, trust_of
from kumodr.vault.streamread import Reading
from kumodr.vault.streamverify import verify_stream


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    return bench(tmp_path)


def filled(made: Bench, count: int, *, size: int = 10) -> Stream:
    stream = Stream(made)
    for number in range(1, count + 1):
        stream.add({}, {number.to_bytes(16, "big"): bytes(size)})
    return stream


@pytest.mark.parametrize(
    "name",
    [
        "stream/n/00000001/0000000000.seg", "stream/n/00000001/1.seg", "stream/n/1/0000000001.seg",
        "stream/n/00000001/x.seg", "stream/n/00000001/00000000001.seg",
        "stream/n/00000001/rollup/0000000002-0000000001.seg", "stream/n/00000001/rollup/0000000001-0000000001.seg",
        "stream/a/b/00000001/0000000001.seg", "stream/n/00000001/0000000001.seg.tmp",
    ],
)  # fmt: skip
def test_other_names_are_passed_over(name: str) -> None:
    assert part_of_name(name) is None


@given(
    st.integers(1, 40),
    st.sets(st.integers(1, 40)),
    st.sets(st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda pair: pair[0] < pair[1])),
    st.integers(1, 45),
)
def test_a_path_has_no_gap_and_is_the_shortest(
    begin: int, singles: set[int], rollups: set[tuple[int, int]], end: int
) -> None:
    found = Listing("n", 1, frozenset(singles), tuple(sorted(rollups)))
    parts = list(path(found, begin, end))
    names = singles | {first for first, _ in rollups}
    reach = begin - 1
    for place, part in enumerate(parts):
        assert part.first == reach + 1 or (place == 0 and part.first < begin <= part.last)
        assert (part.first in singles and part.first == part.last) or (part.first, part.last) in rollups
        longer = [last for first, last in rollups if first == part.first and part.last < last <= end]
        assert not longer
        reach = part.last
    assert reach <= max(end, begin - 1)
    assert reach + 1 not in singles or reach + 1 > end
    assert all(first != reach + 1 or last > end for first, last in rollups)
    assert names or not parts


def test_epochs_are_listed_once_each(made: Bench) -> None:
    filled(made, 3)
    second = Stream(made, epoch=4)
    second.add({})
    second.add({})
    second.roll(1, 2)
    made.vault.store.put_if_absent("stream/primary/00000004/other", [b"x"])
    found = epochs(made.vault, "primary")
    assert [(each, found[each].newest, found[each].rollups) for each in found] == [(1, 3, ()), (4, 2, ((1, 2),))]
    assert listing(made.vault, "primary", 9).newest == 0


class Counting:
    """A store that counts how often heads are read, and can hide names from its list."""

    def __init__(self, made: Bench, hidden: frozenset[str] = frozenset()) -> None:
        self.inner = made.vault.store
        self.hidden = hidden
        self.starts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        self.starts += 1
        return self.inner.start(name, length)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return (name for name in self.inner.list(prefix) if name not in self.hidden)


def test_the_range_is_known_by_one_head_and_a_time_by_a_few(made: Bench) -> None:
    stream = filled(made, 200)
    store = Counting(made, frozenset([stream.names[150]]))
    vault = Vault(store, made.vault.id, made.vault.recipients)  # type: ignore[arg-type]
    trust = trust_of(vault, {})
    found = listing(vault, "primary", 1)
    reach, problems = extent(vault, found, 1, trust)
    assert reach is not None
    assert (reach.last, reach.taken, problems, store.starts) == (200, stream.taken(200), (), 1)
    for number in (1, 77, 151, 200):
        store.starts = 0
        for moment in (stream.taken(number), stream.taken(number) + timedelta(milliseconds=999)):
            reach, _ = extent(vault, found, 1, trust, moment)
            assert reach is not None
            assert reach.last == number
        assert store.starts <= 20
    assert extent(vault, found, 1, trust, START)[0] is None


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 12)), st.sets(st.integers(1, 12)), st.integers(0, 13))
def test_the_last_good_head_ends_the_range(
    tmp_path_factory: pytest.TempPathFactory, missing: set[int], damaged: set[int], at: int
) -> None:
    made = bench(tmp_path_factory.mktemp("extent"))
    stream = filled(made, 12)
    for number in missing | damaged:
        where = made.folder / "vault" / stream.names[number - 1]
        data = where.read_bytes()
        where.unlink()
        if number not in missing:
            where.write_bytes(data[:-1])
    gap = min((*missing, 13))
    good = [number for number in range(1, min(gap, at + 1)) if number not in damaged]
    reach, _ = extent(made.vault, listing(made.vault, "primary", 1), 1, trust_of(made.vault, {}), stream.taken(at))
    assert (reach.last if reach else None) == (good[-1] if good else None)
    reading = Reading(made.vault, listing(made.vault, "primary", 1), 1, 12, trust_of(made.vault, {}), made.identities)
    numbers = [segment.head.last for segment in reading]
    assert numbers == list(range(1, min((*missing, *damaged, 13))))
    assert bool(reading.problems) == bool(missing or damaged)
    result = verify_stream(
        made.vault, listing(made.vault, "primary", 1), 1, trust_of(made.vault, {}), made.identities, lambda *_: None
    )
    there = set(range(1, 13)) - missing
    assert bool(result.problems) == bool(damaged & there or any(each < max(there, default=0) for each in missing))


def test_memory_is_bounded_and_the_order_kept(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = filled(made, 40, size=300_000)
    monkeypatch.setattr(streamread, "IN_FLIGHT", 2_000_000)
    lock, held, most = threading.Lock(), [0], [0]
    whole = streamread._Budget.take

    def watched(self: Any, turn: int, size: int) -> None:
        whole(self, turn, size)
        with lock:
            held[0] = sum(self._held.values())
            most[0] = max(most[0], held[0])

    monkeypatch.setattr(streamread._Budget, "take", watched)
    reading = Reading(made.vault, listing(made.vault, "primary", 1), 1, 40, trust_of(made.vault, {}), made.identities)
    assert [segment.head.last for segment in reading] == list(range(1, 41))
    assert 600_000 < most[0] <= 2_000_000 + 700_000
    assert reading.hash == stream.hash


def test_a_consumer_that_stops_leaves_no_thread(made: Bench) -> None:
    filled(made, 30)
    before = threading.active_count()
    reading = Reading(made.vault, listing(made.vault, "primary", 1), 1, 30, trust_of(made.vault, {}), made.identities)
    for segment in reading:
        if segment.head.last == 3:
            break
    assert threading.active_count() == before


def test_a_chain_that_lies_is_named(made: Bench) -> None:
    stream = filled(made, 6)
    stream.hashes[3] = "0" * 64
    stream.hashes[6] = "1" * 64
    stream.roll(4, 5)
    stream.roll(5, 6)
    result = verify_stream(
        made.vault, listing(made.vault, "primary", 1), 1, trust_of(made.vault, {}), None, lambda *_: None
    )
    assert len(result.problems) == 2
    assert "0000000004-0000000005.seg does not follow" in result.problems[0]
    assert "0000000005-0000000006.seg ends with another" in result.problems[1]


def test_a_first_segment_with_one_before_it_is_none(made: Bench) -> None:
    Stream(made, hash="a" * 64).add({})
    reading = Reading(made.vault, listing(made.vault, "primary", 1), 1, 1, trust_of(made.vault, {}), made.identities)
    assert list(reading) == []
    assert isinstance(reading.problems[0], errors.ChainBroken)
    assert Part("primary", 1, 1, 1).name in str(reading.problems[0])
