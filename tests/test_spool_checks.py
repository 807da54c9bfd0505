"""The parts that judge a spool: logs, live tables, the count, and LocalDisk while it is written."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict, WriteBatch

from kumodr.ledger.fates import Fate
from kumodr.source import Pinned
from kumodr.spool import explain
from kumodr.spool.census import SpoolCensus, count, paired
from kumodr.spool.live import live_files
from kumodr.spool.logcheck import LogCheck
from kumodr.spool.pinned import pin
from kumodr.spool.snapshot import snapshot


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three logs of one database, in order, with values that end at every distance from a block's end."""
    folder = tmp_path_factory.mktemp("logs") / "db"
    options = Options(raw_mode=True)
    options.set_write_buffer_size(64 << 10)
    options.set_max_write_buffer_number(20)
    options.set_min_write_buffer_number_to_merge(18)
    database = Rdict(str(folder), options)
    for number in range(60):
        database.put(number.to_bytes(16, "big"), os.urandom(1) * (2500 + number))
    group = WriteBatch(raw_mode=True)
    group.put(b"a" * 16, b"together")
    group.delete(b"b" * 16)
    database.write(group)
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("*.log"))}
    database.close()
    assert len(found) > 1
    return found


def problems(logs: dict[str, bytes], piece: int = 1 << 20) -> tuple[str, ...]:
    check = LogCheck(lambda _name: True)
    for name, data in logs.items():
        for start in range(0, len(data), piece):
            check.seen(name, data[start : start + piece])
    return check.finish()


@settings(max_examples=40, deadline=None)
@given(piece=st.integers(1, 70_000), cut=st.integers(0))
def test_good_logs_have_no_problem_however_they_come_and_wherever_they_end(
    logs: dict[str, bytes], piece: int, cut: int
) -> None:
    *_, newest = logs
    assert problems({**logs, newest: logs[newest][: cut % (len(logs[newest]) + 1)]}, piece) == ()


@settings(max_examples=150, deadline=None)
@given(where=st.integers(0), bit=st.integers(0, 7))
def test_a_wrong_bit_in_a_log_that_has_a_successor_is_found(logs: dict[str, bytes], where: int, bit: int) -> None:
    name = next(iter(logs))
    data = bytearray(logs[name])
    at = where % len(data)
    data[at] ^= 1 << bit
    in_padding = at % 32768 > 32768 - 7 and logs[name][at] == 0
    assert problems({**logs, name: bytes(data)}) != () or in_padding


def test_a_log_that_is_missing_between_others_is_found(logs: dict[str, bytes]) -> None:
    _, second, *rest = logs
    assert rest, "three logs"
    (problem,) = problems({name: data for name, data in logs.items() if name != second})
    assert "writes are missing before it" in problem


def test_zeros_at_the_end_are_no_damage_and_something_behind_them_is(logs: dict[str, bytes]) -> None:
    *_, newest = logs
    zeros = logs[newest] + bytes(100_000)
    assert problems({**logs, newest: zeros}) == ()
    (problem,) = problems({**logs, newest: zeros + b"x"})
    assert "zeros inside" in problem


def test_logs_that_the_database_needs_no_more_are_passed_over() -> None:
    check = LogCheck(lambda name: name > "000005.log")
    check.seen("000004.log", b"\x01" * 40_000)
    assert check.finish() == ()


def test_the_live_tables_are_those_that_rocksdb_names(tmp_path: Path) -> None:
    options = Options(raw_mode=True)
    options.set_write_buffer_size(64 << 10)
    options.set_level_zero_file_num_compaction_trigger(2)
    database = Rdict(str(tmp_path / "db"), options)
    for number in range(3000):
        database.put((number * 7919 % 3000).to_bytes(16, "big"), os.urandom(300))
    for number in range(0, 3000, 3):
        database.delete(number.to_bytes(16, "big"))
    database.compact_range(None, None)
    database.flush()
    named = {each["name"].strip("/") for each in database.live_files()}
    held = pin(tmp_path / "db", attempts=20)
    try:
        live = live_files(Pinned(held.manifest.descriptor), held.manifest.status.st_size)
        assert live is not None
        assert {f"{number:06d}.sst" for number in live.tables} == named
        assert any(live.holds(log.name) for log in held.logs)
    finally:
        held.close()
        database.close()


def test_a_manifest_that_cannot_be_read_leaves_every_table_in(tmp_path: Path) -> None:
    path = tmp_path / "MANIFEST"
    for data in (b"\xff" * 100, os.urandom(40_000)):
        path.write_bytes(data)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert live_files(Pinned(descriptor), len(data)) is None
        finally:
            os.close(descriptor)


SIDES = st.dictionaries(st.binary(min_size=1, max_size=2), st.integers(0, 9))


@given(meta=SIDES, data=SIDES)
def test_pairing_two_halves_is_what_sets_say(meta: dict[bytes, int], data: dict[bytes, int]) -> None:
    def sides() -> tuple[Iterator[tuple[bytes, int]], Iterator[tuple[bytes, int]]]:
        return iter(sorted(meta.items())), iter(sorted(data.items()))

    assert list(paired(*sides())) == [(key, meta.get(key), data.get(key)) for key in sorted({*meta, *data})]
    census = count(*sides())
    assert (census.meta_count, census.data_count) == (len(meta), len(data))
    assert census.without_body == tuple(key.hex() for key in sorted(set(meta) - set(data)))
    assert census.without_meta == tuple(key.hex() for key in sorted(set(data) - set(meta)))
    assert (census.meta_bytes, census.body_bytes) == (sum(meta.values()), sum(data.values()))


def test_a_message_in_one_half_is_explained_by_what_the_log_says_of_it() -> None:
    from datetime import UTC, datetime

    taken = datetime(2026, 11, 24, tzinfo=UTC)
    fates = {
        "aa": Fate("aa", taken, True, ("x", "y"), {"x": "Delivery", "y": "Bounce"}),
        "bb": Fate("bb", taken.replace(hour=1), True, ("x", "y"), {"x": "Delivery"}),
        "cc": Fate("cc", ended_by="Expiration"),
    }
    census = SpoolCensus(without_body=("aa", "bb", "cc", "dd"), without_meta=("bb",))
    found = [(each.id, each.part, each.why) for each in explain.explain(census, fates, taken)]
    assert found == [
        ("aa", "meta", explain.FINISHED), ("bb", "meta", explain.OPEN), ("cc", "meta", explain.FINISHED),
        ("dd", "meta", explain.UNKNOWN), ("bb", "data", explain.ACCEPTED_LATER),
    ]  # fmt: skip


WRITER = """
import os, sys
from pathlib import Path
root, window = Path(sys.argv[1]), 200
def path(half, number):
    text = f"{number * 2654435761 % 2**32:08x}{number:024x}"
    return root / half / "data" / text[:2] / text[2:4] / text[4:6] / text[6:8] / text[8:]
def put(half, number, size):
    temporary = root / half / "new" / str(number)
    temporary.write_bytes(b"m" * size)
    target = path(half, number)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(target)
counters = os.open(root / "counters", os.O_RDWR)
number = 0
while True:
    put("data", number, 1000)
    put("meta", number, 200)
    os.pwrite(counters, (number + 1).to_bytes(8, "big"), 0)
    put("meta", max(0, number - 5), 150 + number % 90)  # put off: metadata is replaced
    if number >= window:
        os.pwrite(counters, (number - window + 1).to_bytes(8, "big"), 8)
        path("data", number - window).unlink()
        path("meta", number - window).unlink()
    number += 1
"""


def test_a_localdisk_spool_that_is_written_loses_nothing_and_tears_nothing(tmp_path: Path) -> None:
    for half in ("meta", "data"):
        (tmp_path / half / "new").mkdir(parents=True)
        (tmp_path / half / "data").mkdir()
    (tmp_path / "counters").write_bytes(bytes(16))

    def counters() -> tuple[int, int]:
        data = (tmp_path / "counters").read_bytes()
        return int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big")

    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path])
    try:
        deadline = time.monotonic() + 20
        while counters()[0] < 400:
            assert time.monotonic() < deadline
            assert writer.poll() is None
            time.sleep(0.01)
        for _ in range(5):
            accepted, _ = counters()
            with snapshot(tmp_path / "meta", tmp_path / "data") as snap:
                listed: dict[str, set[int]] = {"meta": set(), "data": set()}
                for file in snap.files:
                    if file.kind == "file":
                        half, _, *digits = file.path.split("/")
                        listed[half].add(int(digits[-1], 16))
                        content = file.content.read(0, file.size)
                        assert content == b"m" * file.size, "whole, and of one moment"
                _, finished = counters()
                census = snap.validate()
            wanted = set(range(finished, accepted))
            assert wanted <= listed["meta"]
            assert wanted <= listed["data"]
            assert (census.meta_count, census.data_count) == (len(listed["meta"]), len(listed["data"]))
            assert all(int(each[8:], 16) < finished for each in census.without_body)
    finally:
        writer.kill()
        writer.wait()
