"""Snapshots of a RocksDB spool while another process writes it, flushing and compacting all the time."""

import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kumodr.spool.reader import open_spool
from kumodr.spool.snapshot import SpoolSnapshot, snapshot

WRITER = """
import mmap, os, struct, sys
from rocksdict import Options, Rdict
meta_path, data_path, counters_path, window = sys.argv[1:4] + [int(sys.argv[4])]
def opened(path):
    options = Options(raw_mode=True)
    options.set_write_buffer_size(64 << 10)
    options.set_level_zero_file_num_compaction_trigger(2)
    options.set_paranoid_checks(False)
    return Rdict(path, options)
meta, data = opened(meta_path), opened(data_path)
counters = mmap.mmap(os.open(counters_path, os.O_RDWR), 16)
body = os.urandom(2000)
number = 0
while True:
    key = number.to_bytes(16, "big")
    data.put(key, body + key)
    meta.put(key, b'{"sender":"","recipient":"r@x.test","meta":{},"schedule":null}' + b" " * 200)
    counters[0:8] = struct.pack("<Q", number + 1)
    if number >= window:
        done = number - window
        counters[8:16] = struct.pack("<Q", done + 1)
        key = done.to_bytes(16, "big")
        data.delete(key)
        meta.delete(key)
    number += 1
"""


@dataclass(frozen=True)
class Live:
    """A spool that is being written. Keys are numbers; those in [finished, accepted) are in it."""

    meta: Path
    data: Path
    counters: mmap.mmap

    def accepted(self) -> int:
        return struct.unpack("<Q", self.counters[0:8])[0]

    def finished(self) -> int:
        """Those below it may be gone."""
        return struct.unpack("<Q", self.counters[8:16])[0]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    counters = folder / "counters"
    counters.write_bytes(bytes(16))
    with counters.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 16)
    found = Live(folder / "meta", folder / "data", shared)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, found.meta, found.data, counters, "400"])
    try:
        deadline = time.monotonic() + 20
        while found.accepted() < 1000:
            assert time.monotonic() < deadline and writer.poll() is None
            time.sleep(0.01)
        yield found
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()


def numbers(snap: SpoolSnapshot, scratch: Path) -> tuple[list[int], list[int]]:
    """Return the keys of both halves."""
    scratch.mkdir()
    readers = snap.readers(scratch)
    try:
        meta, data = ([int.from_bytes(key, "big") for key in readers[name].ids()] for name in ("meta", "data"))
        return meta, data
    finally:
        for reader in readers.values():
            reader.close()


def test_no_accepted_and_unfinished_message_is_missing_from_a_snapshot(live: Live, tmp_path: Path) -> None:
    moved_on = 0
    for trial in range(25):
        accepted = live.accepted()
        with snapshot(live.meta, live.data, attempts=1000) as snap:
            finished = live.finished()
            moved_on += snap.retries
            meta, data = numbers(snap, tmp_path / str(trial))
        assert meta == list(range(meta[0], meta[-1] + 1)), "a moment has no holes"
        assert data == list(range(data[0], data[-1] + 1))
        assert meta[0] <= finished + 1
        assert meta[-1] >= accepted - 1
        assert data[-1] >= meta[-1]
        assert data[0] <= finished + 1
        if trial % 8 == 0:
            with snapshot(live.meta, live.data, attempts=1000) as snap:
                census = snap.validate()
                finished = live.finished()
            assert census.problem is None
            assert all(int(identifier, 16) <= finished for identifier in census.without_body)
    assert live.accepted() > accepted


def test_the_wrong_order_loses_bodies(live: Live) -> None:
    """The check above would catch it: data first, and the bodies of what is accepted in between are not there."""
    for _ in range(200):
        with snapshot(live.meta, live.data, attempts=1000, order=("data", "meta")) as snap:
            finished = live.finished()
            census = snap.validate()
        if any(int(identifier, 16) > finished for identifier in census.without_body):
            return
    pytest.fail("200 snapshots in the wrong order lost nothing: the trial proves nothing")


def test_a_snapshot_stays_what_it_was_while_the_database_goes_on(live: Live) -> None:
    with snapshot(live.meta, live.data, attempts=1000) as snap:
        before = {file.path: file.content.read(0, file.size) for file in snap.files if file.kind == "file"}
        first = snap.validate()
        goal = live.accepted() + 2000
        deadline = time.monotonic() + 20
        while live.accepted() < goal and time.monotonic() < deadline:
            time.sleep(0.01)
        assert snap.validate() == first
        assert {file.path: file.content.read(0, file.size) for file in snap.files if file.kind == "file"} == before
        tables = [path for path in before if path.endswith(".sst")]
        assert any(not os.path.exists(live.meta.parent / path) for path in tables), "nothing was compacted meanwhile"


def test_reading_a_live_spool_gives_one_moment(live: Live) -> None:
    accepted = live.accepted()
    with open_spool(live.meta, live.data) as spool:
        ids = [int(identifier, 16) for identifier in spool.ids()]
        assert ids == list(range(ids[0], ids[-1] + 1))
        assert ids[-1] >= accepted - 1
        assert spool.count() == len(ids)
        newest = f"{ids[-1]:032x}"
        assert spool.body(newest).endswith(bytes.fromhex(newest))


def test_a_snapshot_differs_from_the_next_one_when_something_was_written(live: Live) -> None:
    with snapshot(live.meta, live.data, attempts=1000) as snap:
        first, accepted = snap.fingerprint, live.accepted()
    deadline = time.monotonic() + 10
    while live.accepted() == accepted and time.monotonic() < deadline:
        time.sleep(0.005)
    with snapshot(live.meta, live.data, attempts=1000) as snap:
        assert snap.fingerprint != first
