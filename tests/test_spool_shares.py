"""Reading a spool in shares finds what reading it whole finds, each message once."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spool_samples import NOW, key, meta, write_spool

from kumodr.spool.examine import SHARES, share_of
from kumodr.spool.snapshot import snapshot
from kumodr.spool.vet import DAMAGED, vet_and_count


@given(st.binary(max_size=20))
def test_each_key_is_in_exactly_one_share(each: bytes) -> None:
    held = [
        share
        for share in (None, *range(SHARES))
        for first, behind in share_of(share)
        if (first is None or first <= each) and (behind is None or each < behind)
    ]
    assert len(held) == 2
    assert held[0] is None


def test_the_ranges_of_a_share_are_in_ascending_order() -> None:
    for share in range(SHARES):
        ranges = share_of(share)
        assert [first or b"" for first, _ in ranges] == sorted(first or b"" for first, _ in ranges)


@pytest.fixture
def spread(tmp_path: Path) -> Path:
    """Messages all over the keys: good ones, some without a body, some without metadata, some unreadable."""
    ids = [key(timedelta(seconds=5 * number), number=number % 256) for number in range(400)]
    metas = {each: b"{" if number % 7 == 0 else meta() for number, each in enumerate(ids) if number % 11}
    write_spool(tmp_path / "spool", "rocksdb", metas, {each: b"x" for number, each in enumerate(ids) if number % 13})
    return tmp_path / "spool"


def test_shares_find_what_one_reader_finds(spread: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vetted(processors: int) -> object:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))
        return vet_and_count(spread / "meta", spread / "data", "rocksdb", NOW)

    alone, shared = vetted(1), vetted(2)
    assert alone == shared
    assert (shared.meta_count, shared.data_count) == (363, 369)
    assert len(shared.findings) > 80


def test_two_processes_read_only_where_logs_are_small(spread: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    arguments = {"now": NOW.isoformat(), "max_age": 1.0}
    with snapshot(spread / "meta", spread / "data") as held:
        assert len(held.examine_shared("vet", **arguments)) == 2
    with (spread / "data" / "000999.log").open("wb") as log:
        log.truncate((48 << 20) + 1)
    with snapshot(spread / "meta", spread / "data") as held:
        assert len(held.examine_shared("vet", **arguments)) == 1


@pytest.mark.parametrize("end", ["first", "last"])
def test_damage_in_any_share_is_found(spread: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    table = max((spread / "meta").glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    data[20 if end == "first" else len(data) // 2] ^= 1
    table.write_bytes(data)
    found = vet_and_count(spread / "meta", spread / "data", "rocksdb", NOW)
    assert found.findings[-1].reason == DAMAGED
