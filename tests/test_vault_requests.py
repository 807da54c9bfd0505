"""How many requests a look at a distant vault takes: few, and bounded, whatever was stored."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from buckets import moto
from hypothesis import given, settings
from hypothesis import strategies as st
from liar import lying
from streams import Stream
from vaults import Bench, bench, capture_of

from kumodr.recover.choose import Streams
from kumodr.recover.ranges import ranges
from kumodr.recover.standing import look
from kumodr.source import Held, SourceFile
from kumodr.vault.backup import begin_backup
from kumodr.vault.facts import StreamJoin
from kumodr.vault.open import create_vault
from kumodr.vault.points import survey
from kumodr.vault.shortlist import short_listing
from kumodr.vault.store import Store
from kumodr.vault.stream import extent, listing, trust_of


class Counting:
    """A store that counts what is asked of it: pages of 1,000 names, objects, sizes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.count = 0
        self.names = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, name: str, limit: int) -> bytes:
        self.count += 1
        return self._store.get(name, limit)

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        self.count += 1
        return self._store.start(name, length)

    def size(self, name: str) -> int | None:
        self.count += 1
        return self._store.size(name)

    def list(self, prefix: str, after: str = "") -> Any:
        found = list(self._store.list(prefix, after))
        self.names += len(found)
        self.count += 1 + len(found) // 1000
        return iter(found)


def filled(made: Bench, minutes: int) -> Stream:
    """A base, and a stream on it: names only count here, so what a minute does not need is not there."""
    stream = Stream(made)
    for number in range(1, 61 * minutes):
        stream.add({bytes(16): b"%d" % number})
        if number % 60 == 0:
            stream.roll(number - 59, number)
    with begin_backup(made.vault, made.key, made.state, made.clock, lambda *_: None) as session:
        session.store("spool", capture_of([SourceFile("file", size=1, content=Held(b"x"))]))
        session.commit(StreamJoin(1, 1, 1))
    return stream


def test_status_asks_little_of_a_long_stream(tmp_path: Path) -> None:
    made = bench(tmp_path)
    stream = filled(made, 3)
    store: Any = Counting(made.vault.store)
    vault = replace(made.vault, store=store)
    found = survey(vault, {})
    store.count = store.names = 0
    (shown,), wrong = ranges(found.points, Streams(vault, {}, short=True))
    assert wrong == ()
    assert (shown.first, shown.last, shown.segments, shown.rollups) == (1, 182, 182, 3)
    assert shown.until == stream.taken(182)
    assert store.names < 20
    assert store.count <= 6
    assert ranges(found.points, Streams(made.vault, {}))[0] == (shown,)


@settings(max_examples=15, deadline=None)
@given(
    numbers=st.sets(st.integers(1, 30)),
    rollups=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 8)), max_size=6),
    begin=st.integers(1, 12),
)
def test_few_names_lead_as_far_as_all(
    tmp_path_factory: pytest.TempPathFactory, numbers: set[int], rollups: list[tuple[int, int]], begin: int
) -> None:
    made = bench(tmp_path_factory.mktemp("short"))
    stream = Stream(made)
    for number in range(1, 31):
        stream.add({bytes(16): b"%d" % number}, put=number in numbers)
    for first, length in set(rollups):
        if first + length <= 30:
            stream.roll(first, first + length)
    trust = trust_of(made.vault, {})

    whole, short = listing(made.vault, "primary", 1), short_listing(made.vault, "primary", 1, begin)
    assert short.singles <= whole.singles
    assert extent(made.vault, whole, begin, trust)[0] == extent(made.vault, short, begin, trust)[0]


def test_manifests_are_read_beside_each_other(tmp_path: Path) -> None:
    made = bench(tmp_path)
    with lying(moto().endpoint) as liar:
        place = replace(moto().place(tmp_path), endpoint=liar.endpoint)
        made = replace(made, vault=create_vault(place, made.vault.recipients, made.clock))
        for number in range(8):
            made.backup({"config": capture_of([SourceFile("file", size=1, content=Held(b"%d" % number))])})
        liar.calm()
        found = survey(made.vault, {})
        assert len(found.points) == 8
        assert sum(liar.seen.values()) <= 8 + 6
        liar.calm()
        seen = look(made.vault, None, datetime.now(UTC) + timedelta(days=1), local=False)
        assert len(seen.points) == 8
        assert sum(liar.seen.values()) <= 8 + 10
        assert 2 <= liar.together <= 10
