"""The write-ahead log, decoded as it grows: against logs that RocksDB itself wrote, real and made here."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict, WriteBatch
from wal_bytes import Entry, batch_of, fragment, log_of, raw_batch, text, varint

from kumodr.protect.wal.batch import Batch, decode
from kumodr.protect.wal.manifest import last_sequence_of
from kumodr.protect.wal.records import BLOCK, WalReader, WalUnusable, last_record
from kumodr.protect.wal.replay import Replay


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


def records_of(data: bytes) -> list[bytes]:
    return list(WalReader().feed(data))


def test_what_rocksdb_wrote_is_what_is_made_here(log: tuple[bytes, list[bytes]]) -> None:
    data, _values = log
    assert log_of(records_of(data)) == data


KEYS = st.binary(min_size=16, max_size=16) | st.binary(max_size=40)
SIZES = st.sampled_from([0, 1, 126, 127, 128, 129, 16_382, 16_383, 16_384, 16_385]) | st.integers(0, 300)
ENTRIES = st.lists(st.tuples(KEYS, st.none() | SIZES.map(lambda size: bytes(size))), max_size=4)


@settings(max_examples=200, deadline=None)
@given(entries=ENTRIES, delete=st.sampled_from([0, 7]), sequence=st.integers(0, 2**56 - 9))
def test_applying_a_batch_is_what_decoding_says(entries: list[Entry], delete: int, sequence: int) -> None:
    record = batch_of(sequence, entries, delete=delete)
    assert decode(record).entries == tuple(entries)
    into: dict[bytes, bytes | None] = {}
    replay = Replay(sequence)
    replay.apply(record, into)
    assert into == dict(entries)
    assert replay.sequence == sequence + len(entries)
    puts = [value for _key, value in entries if value is not None]
    assert (replay.puts, replay.deletes) == (len(puts), len(entries) - len(puts))
    assert replay.put_bytes == sum(map(len, puts))


@settings(max_examples=300, deadline=None)
@given(entries=ENTRIES, at=st.integers(12, 80), byte=st.integers(0, 255), cut=st.integers(0, 60))
@example(entries=[(bytes(16), b"x")], at=12, byte=1, cut=1)
def test_a_batch_that_is_wrong_is_applied_by_no_way(entries: list[Entry], at: int, byte: int, cut: int) -> None:
    """Whatever a record holds, it is applied as it is decoded, wholly or not at all."""
    record = bytearray(batch_of(5, entries))
    if at < len(record):
        record[at] = byte
    wrong = bytes(record[: len(record) - cut])
    into: dict[bytes, bytes | None] = {}
    replay = Replay(5)
    try:
        expected = decode(wrong)
    except WalUnusable as refused:
        with pytest.raises(WalUnusable) as reason:
            replay.apply(wrong, into)
        assert (str(reason.value), into, replay.sequence) == (str(refused), {}, 5)
    else:
        replay.apply(wrong, into)
        assert into == dict(expected.entries)


REFUSED = {
    "range of another family": (raw_batch(1, 1, b"\x0e\1", text(b"a"), text(b"z")), "a range of messages"),
    "range": (raw_batch(1, 1, b"\x0f", text(b"a"), text(b"z")), "a range of messages"),
    "merge": (raw_batch(1, 1, b"\2", text(b"a"), text(b"z")), "a merge"),
    "another family": (raw_batch(1, 1, b"\5\1", text(b"a"), text(b"z")), "another column family"),
    "transaction": (raw_batch(1, 1, b"\x09"), "a transaction in two phases"),
    "wide columns": (raw_batch(1, 1, b"\x16", text(b"a"), text(b"z")), "an entry of unknown type 0x16"),
    "unknown": (raw_batch(1, 1, b"\x7e"), "an entry of unknown type 0x7e"),
    "too many": (raw_batch(1, 1, b"\0", text(b"a"), b"\0", text(b"b")), "says 1 entries and has 2"),
    "too few": (raw_batch(1, 3, b"\0", text(b"a"), b"\0", text(b"b")), "says 3 entries and has 2"),
    "short": (b"\0" * 11, "shorter than its head"),
    "cut key": (raw_batch(1, 1, b"\0\x10abc"), "ends in the middle"),
    "cut value": (raw_batch(1, 1, b"\1" + text(bytes(16)) + b"\5abc"), "ends in the middle"),
    "long number": (raw_batch(1, 1, b"\0" + b"\xff" * 20), "too long"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_cannot_be_followed_is_refused_by_name(what: str) -> None:
    record, reason = REFUSED[what]
    into: dict[bytes, bytes | None] = {}
    with pytest.raises(WalUnusable, match=reason):
        Replay(1).apply(record, into)
    assert into == {}


def test_entries_that_say_nothing_about_messages_are_passed_over() -> None:
    into: dict[bytes, bytes | None] = {}
    replay = Replay(1)
    replay.apply(raw_batch(1, 1, b"\x0d", b"\3" + text(b"a note"), b"\1" + text(b"k") + text(b"v")), into)
    replay.apply(raw_batch(2, 0), into)
    assert into == {b"k": b"v"} and replay.sequence == 2


FRAGMENTS = {
    "recycled": (fragment(5, b"\0\0\0\0x"), "recycled"),
    "compressed": (fragment(9, b"x"), "compressed"),
    "no beginning": (fragment(4, b"x"), "type 4 is out of place"),
    "beginning twice": (fragment(2, b"x") + fragment(2, b"x"), "type 2 is out of place"),
    "whole inside another": (fragment(2, b"x") + fragment(1, b"x"), "type 1 is out of place"),
    "unknown": (fragment(77, b"x"), "type 77 is out of place"),
    "zeros inside": (bytes(20) + fragment(1, b"x"), "zeros inside the log at offset 0"),
    "over the block's end": (fragment(1, bytes(40_000)) + b"x", "crosses its block at offset 0"),
}


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize("what", list(FRAGMENTS))
def test_a_log_of_another_form_is_refused_by_name(what: str, pieces: int) -> None:
    data, reason = FRAGMENTS[what]
    reader = WalReader()
    with pytest.raises(WalUnusable, match=reason):
        while reader.wanted < len(data):
            assert list(reader.feed(data[reader.wanted : reader.wanted + len(data) // pieces + 1])) == []


def test_a_record_without_an_end_is_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kumodr.protect.wal.records.LARGEST", 100_000)
    with pytest.raises(WalUnusable, match="a record is larger than"):
        records_of(log_of([bytes(200_000)]))


@pytest.mark.parametrize("size", [100, 50_000])
@pytest.mark.parametrize("tail", [b"\0", b"\xff"])
def test_a_tail_that_is_not_right_yet_is_waited_for(size: int, tail: bytes) -> None:
    data = log_of([batch_of(1, [(bytes(16), b"a")]), batch_of(2, [(bytes(16), b"v" * size)])])
    for missing in (1, 50, size // 3):
        reader = WalReader()
        assert len(list(reader.feed(data[:-missing] + tail * missing + bytes(100_000 if missing == 50 else 0)))) == 1
        reader.forget_tail()
        assert len(list(reader.feed(data[reader.wanted :]))) == 1
        assert reader.position == reader.wanted == len(data)
        with pytest.raises(WalUnusable, match="wrong checksum"):
            records_of(data[:-missing] + tail * missing + fragment(1, b"x"))


def test_zeros_at_the_end_are_not_judged_and_not_held() -> None:
    data = log_of([batch_of(1, [(bytes(16), b"a")])])
    reader = WalReader()
    for piece in (data + bytes(1_000_000), bytes(3_000_000)):
        list(reader.feed(piece))
    assert (reader.position, reader.wanted) == (len(data), len(data) + 4_000_000)
    with pytest.raises(WalUnusable, match=f"zeros inside the log at offset {len(data)}"):
        list(reader.feed(b"\0\1"))


def test_stopping_early_leaves_the_reader_behind_the_record_it_gave() -> None:
    data = log_of([batch_of(number, [(bytes(16), b"a")]) for number in range(9)])
    reader = WalReader()
    records = reader.feed(data)
    first = [next(records), next(records)]
    records.close()
    assert reader.position < reader.wanted == len(data)
    reader.forget_tail()
    assert reader.position == reader.wanted
    assert first + list(reader.feed(data[reader.wanted :])) == records_of(data)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0, max_value=1_500_000))
def test_the_last_record_is_found_from_the_end(log: tuple[bytes, list[bytes]], cut: int, tmp_path_factory) -> None:
    """It is the last whole one, or the one behind it whose first part is there; reading from it gives it."""
    data, _values = log
    path = tmp_path_factory.getbasetemp() / "cut.log"
    path.write_bytes(data[:cut])
    with path.open("rb") as file:
        found = last_record(file.fileno(), path.stat().st_size)
    whole = batches_of(data[:cut])
    if found is None:
        assert not whole
    else:
        following = decode(next(WalReader(found[0]).feed(data[found[0] :])))
        assert following.sequence - (whole[-1].sequence if whole else 0) in (0, 1)
        assert following.sequence == int.from_bytes(found[1][:8], "little")


def test_the_last_sequence_number_of_an_edit() -> None:
    numbers = varint(2) + varint(7) + varint(9) + varint(0) + varint(3) + varint(10)
    assert last_sequence_of(numbers + varint(4) + varint(300) + b"\x67rest") == 300
    assert last_sequence_of(varint(1) + text(b"comparator") + varint(4) + varint(5)) == 5
    assert last_sequence_of(varint(0x2001) + varint(4) + b"\4\4\4\4") == 0
    assert last_sequence_of(numbers + varint(100) + varint(4) + varint(9)) == 0
    assert last_sequence_of(b"") == last_sequence_of(b"\4") == last_sequence_of(b"\1\xff") == 0
