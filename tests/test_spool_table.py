"""Tables read block by block: every entry of a whole one, and of a damaged one all but what lies in the gaps named."""

import tempfile
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import BlockBasedOptions, DBCompressionType, Options, Rdict

from kumodr.spool.salvage.log import LogGap, records_of
from kumodr.spool.table.read import Found, Gap, read_table

Entries = dict[bytes, tuple[int, bytes]]


@cache
def table(version: int, compression: str) -> tuple[bytes, Entries]:
    """Return a table as RocksDB writes it, and what is in it."""
    chance = Random(f"{version} {compression}")
    options = Options(raw_mode=True)
    options.set_compression_type(getattr(DBCompressionType, compression)())
    blocks = BlockBasedOptions()
    blocks.set_format_version(version)
    options.set_block_based_table_factory(blocks)
    with tempfile.TemporaryDirectory() as folder:
        database = Rdict(folder, options)
        entries: Entries = {}
        for number in range(1, 400):
            key = chance.randbytes(16)
            value = b'{"sender":"a@b.test"}' * chance.randrange(20) + chance.randbytes(chance.choice((0, 5, 9000)))
            database.put(key, value)
            entries[key] = (number, value)
        database.flush()
        database.close()
        (path,) = Path(folder).glob("*.sst")
        return path.read_bytes(), entries


def read(data: bytes) -> tuple[list[Found], list[Gap]]:
    found: list[Found] = []
    gaps: list[Gap] = []
    for each in read_table(lambda offset, length: data[offset : offset + length], len(data)):
        gaps.append(each) if isinstance(each, Gap) else found.extend(each)
    return found, gaps


def check(data: bytes, entries: Entries) -> int:
    """Everything that was read is right, and what was not lies in a gap. Return how many entries were read."""
    found, gaps = read(data)
    for each in found:
        assert entries[each.key] == (each.sequence, each.value)
        assert each.kind == 1
    for key in entries.keys() - {each.key for each in found}:
        assert any(_inside(gap, key) for gap in gaps), key.hex()
    return len(found)


def _inside(gap: Gap, key: bytes) -> bool:
    return (gap.after is None or key >= gap.after) and (gap.until is None or key[: len(gap.until)] <= gap.until)


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("compression", ["none", "snappy", "lz4", "zstd"])
def test_a_whole_table_is_read_whole(version: int, compression: str) -> None:
    data, entries = table(version, compression)
    found, gaps = read(data)
    assert not gaps
    assert {each.key: (each.sequence, each.value) for each in found} == entries


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_without_its_end_a_table_loses_only_what_was_cut_off(version: int, compression: str) -> None:
    data, entries = table(version, compression)
    half = check(data[: len(data) // 2], entries)
    assert 0.4 * len(entries) < half < 0.6 * len(entries)
    damaged = bytearray(data)
    damaged[-1500:] = bytes(1500)
    assert check(bytes(damaged), entries) > 0.95 * len(entries)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_what_cannot_be_found_without_the_index_is_said(compression: str) -> None:
    data, entries = table(6, compression)
    assert check(data[:-60], entries) < len(entries)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([(5, "none"), (5, "snappy"), (6, "snappy"), (6, "none")]),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(1, 200), st.randoms(use_true_random=False)), min_size=1, max_size=3
    ),
)
def test_whatever_is_overwritten_nothing_wrong_is_read(
    form: tuple[int, str], damages: list[tuple[float, int, Random]]
) -> None:
    data, entries = table(*form)
    damaged = bytearray(data)
    for where, length, chance in damages:
        at = int(where * (len(damaged) - 1))
        damaged[at : at + length] = chance.randbytes(len(damaged[at : at + length]))
    check(bytes(damaged), entries)


@cache
def log() -> tuple[bytes, tuple[bytes, ...]]:
    """Return a write-ahead log as RocksDB writes it, and its records."""
    chance = Random(7)
    with tempfile.TemporaryDirectory() as folder:
        database = Rdict(folder, Options(raw_mode=True))
        for _ in range(300):
            database.put(chance.randbytes(16), chance.randbytes(chance.choice((50, 3000, 70_000))))
        data = max(Path(folder).glob("*.log")).read_bytes()
        database.close()
    records = list(records_of(lambda offset, length: data[offset : offset + length], len(data)))
    assert len(records) == 300
    return data, tuple(each for each in records if isinstance(each, bytes))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 100)), min_size=1, max_size=3))
def test_a_damaged_log_gives_every_record_that_is_whole(damages: list[tuple[float, int]]) -> None:
    data, records = log()
    damaged = bytearray(data)
    for where, length in damages:
        at = int(where * (len(damaged) - 1))
        damaged[at : at + length] = bytes(byte ^ 0x55 for byte in damaged[at : at + length])
    found = list(records_of(lambda offset, length: bytes(damaged[offset : offset + length]), len(damaged)))
    whole = [each for each in found if isinstance(each, bytes)]
    assert set(whole) <= set(records)
    assert (
        len(whole) == len(records)
        or any(isinstance(each, LogGap) for each in found)
        or whole == list(records[: len(whole)])
    )
    # A block of 32 KiB holds a dozen records at most, and a record lies in three: the rest must be there.
    assert len(records) - len(whole) <= 30 * len(damages)
