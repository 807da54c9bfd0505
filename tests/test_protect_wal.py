"""The write-ahead log, decoded as it grows: against logs that RocksDB itself wrote, real and made here."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict, WriteBatch

from kumodr.protect.wal.batch import Batch, decode
from kumodr.protect.wal.records import BLOCK, WalReader, WalUnusable


def batches_of(data: bytes, cuts: list[int] | None = None) -> list[Batch]:
    reader = WalReader()
    found: list[Batch] = []
    edges = sorted({min(cut, len(data)) for cut in cuts or []} | {len(data)})
    for edge in edges:
        found += [decode(record) for record in reader.feed(data[reader.wanted : edge])]
    return found


def written_by_rocksdb(folder: Path, values: list[bytes]) -> bytes:
    options = Options(raw_mode=True)
    database = Rdict(str(folder), options)
    for number, value in enumerate(values):
        database.put(number.to_bytes(16, "big"), value)
    database.delete((0).to_bytes(16, "big"))
    group = WriteBatch(raw_mode=True)
    group.put(b"g" * 16, b"together")
    group.delete(b"h" * 16)
    database.write(group)
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.log")))
    database.close()
    return data


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[bytes]]:
    """A log whose values end at every distance from a block's end, and some that span several blocks."""
    values = [b"v" * size for size in (0, 1, 127, 128, 32_000, 32_768, 100_000)]
    values += [b"x" * (BLOCK - 60 + step) for step in range(40)]
    return written_by_rocksdb(tmp_path_factory.mktemp("wal"), values), values


def test_every_put_and_delete_is_read_in_order_without_a_gap(log: tuple[bytes, list[bytes]]) -> None:
    data, values = log
    batches = batches_of(data)
    assert [batch.entries[0][1] for batch in batches[: len(values)]] == values
    assert batches[len(values)].entries == (((0).to_bytes(16, "big"), None),)
    assert batches[-1].entries == ((b"g" * 16, b"together"), (b"h" * 16, None))
    assert all(after.sequence == before.next for before, after in pairwise(batches))


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(min_value=0, max_value=1_500_000), max_size=40))
def test_any_way_of_growing_gives_the_same_batches(log: tuple[bytes, list[bytes]], cuts: list[int]) -> None:
    data, _values = log
    assert batches_of(data, cuts) == batches_of(data)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0, max_value=1_500_000))
def test_reading_goes_on_from_the_position_of_another_reader(log: tuple[bytes, list[bytes]], cut: int) -> None:
    data, _values = log
    first = WalReader()
    before = [decode(record) for record in first.feed(data[:cut])]
    second = WalReader(first.position)
    after = [decode(record) for record in second.feed(data[first.position :])]
    assert before + after == batches_of(data)


@settings(max_examples=80, deadline=None)
@given(where=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_is_never_read_as_data(log: tuple[bytes, list[bytes]], where: int, flip: int) -> None:
    data, _values = log
    broken = bytearray(data)
    broken[where % len(data)] ^= flip
    good = batches_of(data)
    reader = WalReader()
    found: list[Batch] = []
    try:
        for record in reader.feed(bytes(broken)):
            found.append(decode(record))
    except WalUnusable:
        pass
    assert found == good[: len(found)]
    assert len(found) < len(good) or bytes(broken) == data or _in_padding(where % len(data))


def _in_padding(offset: int) -> bool:
    return offset % BLOCK >= BLOCK - 7


@pytest.mark.parametrize("name", ["rocksdb-killed", "rocksdb-clean-stop", "rocksdb-killed-long-segment"])
def test_the_log_of_a_real_server_replays_to_its_messages(unpacked, fixtures_directory: Path, name: str) -> None:
    import hashlib
    import json

    folder = unpacked(name)
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    for database, ids in (("meta", expected["meta_ids"]), ("data", expected["data_ids"])):
        state: dict[bytes, bytes] = {}
        for path in sorted((folder / "spool" / database).glob("*.log")):
            for batch in batches_of(path.read_bytes()):
                for key, value in batch.entries:
                    if value is None:
                        state.pop(key, None)
                    else:
                        state[key] = value
        assert {key.hex() for key in state} == set(ids)
        if database == "data":
            digests = {key.hex(): hashlib.sha256(value).hexdigest() for key, value in state.items()}
            assert digests == expected["data_sha256"]
