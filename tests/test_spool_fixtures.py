"""Spools of a real KumoMTA: read whole, stored whole, and not touched."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from spool_samples import everything, restored

from kumodr.source import SourceFile
from kumodr.spool.reader import open_spool
from kumodr.spool.snapshot import snapshot

SPOOLS = [
    "localdisk-clean-stop", "localdisk-killed", "rocksdb-clean-stop", "rocksdb-expired", "rocksdb-killed",
    "rocksdb-killed-long-segment", "rocksdb-killed-many-flushes",
]  # fmt: skip


def facts_of(spool: Path) -> tuple[list[str], list[str], dict[str, str]]:
    with open_spool(spool / "meta", spool / "data") as held:
        bodies = list(held.body_ids())
        digests = {each: hashlib.sha256(held.body(each)).hexdigest() for each in bodies}
        assert [each for each, _ in held.entries()] == list(held.ids())
        assert held.count() == len(list(held.ids()))
        assert all(held.metadata(each).sender in ("", "s@load.test") for each in held.ids())
        return sorted(held.ids()), sorted(bodies), digests


@pytest.mark.parametrize("name", SPOOLS)
def test_a_capture_and_a_copy_of_its_snapshot_hold_exactly_its_messages(
    unpacked, fixtures_directory: Path, tmp_path: Path, name: str
) -> None:
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    spool = unpacked(name) / "spool"
    wanted = (sorted(expected["meta_ids"]), sorted(expected["data_ids"]), expected["data_sha256"])
    assert facts_of(spool) == wanted
    copy = restored(spool, tmp_path / "copy")
    assert facts_of(copy) == wanted
    with snapshot(spool / "meta", spool / "data") as snap:
        census = snap.validate()
        assert (census.meta_count, census.data_count) == (len(wanted[0]), len(wanted[1]))
        assert census.problem is None
        assert sorted(census.without_body) == expected["meta_without_data"]
        assert sorted(census.without_meta) == expected["data_without_meta"]
        files = [file for file in snap.files if file.kind == "file"]
        assert all(file.identity is not None for file in files)
        again = snap.validate()
    assert again == census, "counted as it was listed"
    with snapshot(copy / "meta", copy / "data") as snap:
        assert snap.validate() == census


@pytest.mark.parametrize("name", ["rocksdb-killed-many-flushes", "localdisk-killed"])
def test_nothing_is_changed_in_a_spool_whatever_is_done_with_it(unpacked, name: str) -> None:
    """As a user who may only read, on a file system that may only be read where this machine lets us mount one."""
    place = Path(tempfile.mkdtemp(prefix="kumodr-test-"))
    spool = place / "spool"
    mounted = False
    try:
        shutil.copytree(unpacked(name) / "spool", spool)
        place.chmod(0o755)
        for path in (spool, *spool.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:
            mounted = _mount_read_only(spool)
        before = everything(spool)
        # Root without the right to pass over permissions: what may only be read can only be read.
        bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"] if os.getuid() == 0 else []
        program = [*bound, sys.executable, "-c", _EVERY_TASK, str(spool)]
        done = subprocess.run(program, capture_output=True, text=True, cwd="/")
        assert (done.returncode, done.stderr) == (0, "")
        assert everything(spool) == before
    finally:
        if mounted:
            subprocess.run(["umount", spool], check=True)
        for path in (spool, *spool.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(place)


_EVERY_TASK = """
import sys
from kumodr.cli.main import main
for words in (["status"], ["list"], ["list", "--json"], ["vet"], ["vet", "--json", "--at", "2026-11-23 23:00+00:00"]):
    code = main(["spool", *words, "--spool", sys.argv[1]])
    assert code in (0, 3), (words, code)
"""


def _mount_read_only(path: Path) -> bool:
    bind = subprocess.run(["mount", "--bind", path, path], capture_output=True)
    if bind.returncode != 0:
        return False
    if subprocess.run(["mount", "-o", "remount,ro,bind", path], capture_output=True).returncode != 0:
        subprocess.run(["umount", path], check=True)
        return False
    return True


@pytest.mark.parametrize("name", ["rocksdb-killed-many-flushes", "localdisk-killed"])
def test_the_fingerprint_is_the_same_until_something_is_changed(unpacked, name: str) -> None:
    spool = unpacked(name) / "spool"

    def fingerprint() -> str:
        with snapshot(spool / "meta", spool / "data") as snap:
            return snap.fingerprint

    first = fingerprint()
    assert fingerprint() == first
    with snapshot(spool / "meta", spool / "data") as snap:
        assert snap.validate().problem is None
        read = [file.content.read(0, file.size) for file in snap.files if file.kind == "file"]
        assert read
    assert fingerprint() == first, "reading changes nothing"
    changed = next(path for path in sorted(spool.rglob("*")) if path.name.endswith(("sst", "e59")))
    os.utime(changed, ns=(1, 1))
    assert fingerprint() != first


def test_an_unchanged_spool_with_many_tables_is_recognised_in_milliseconds(unpacked) -> None:
    spool = unpacked("rocksdb-killed-many-flushes") / "spool"
    for number in range(1000, 1400):
        (spool / "data" / f"{number:06d}.sst").write_bytes(b"x" * 64)

    def once() -> float:
        begun = time.perf_counter()
        with snapshot(spool / "meta", spool / "data") as snap:
            assert snap.fingerprint
        return time.perf_counter() - begun

    assert min(once() for _ in range(5)) < 0.05


def test_tables_that_belong_to_no_database_are_not_stored(unpacked) -> None:
    spool = unpacked("rocksdb-killed-many-flushes") / "spool"
    (spool / "data" / "000099.sst").write_bytes(b"a compaction is writing this")
    (spool / "data" / "000098.blob").write_bytes(b"and this")
    (spool / "data" / "rocksdict-config.json").write_bytes(b"{}")
    with snapshot(spool / "meta", spool / "data") as snap:
        paths = {file.path for file in snap.files}
        assert snap.validate().problem is None
    live = {f"data/0000{number}.sst" for number in (25, 27, 29, 31, 32)}
    assert {path for path in paths if path.startswith("data/") and path.endswith((".sst", ".blob"))} == live
    assert {"data/000030.log", "meta/000010.log"} <= paths, "write-ahead logs are named like log files and are none"
    assert not paths & {"data/LOG", "data/LOCK", "data/rocksdict-config.json", "meta/LOG", "meta/LOCK"}
    assert [path for path in paths if path.endswith("IDENTITY")]


def test_current_comes_last_so_that_what_has_it_has_everything(unpacked) -> None:
    spool = unpacked("rocksdb-killed") / "spool"
    with snapshot(spool / "meta", spool / "data") as snap:
        paths = [file.path for file in snap.files]
    border = paths.index("data")
    assert (paths[0], paths[border - 1], paths[-1]) == ("meta", "meta/CURRENT", "data/CURRENT")


def test_the_halves_may_be_of_different_kinds(unpacked, tmp_path: Path) -> None:
    rocks, local = unpacked("rocksdb-killed") / "spool", unpacked("localdisk-killed") / "spool"
    with snapshot(rocks / "meta", local / "data") as snap:
        assert snap.kind == "mixed"
        files: list[SourceFile] = list(snap.files)
        census = snap.validate()
    assert (census.meta_count, census.data_count, census.without_body_count) == (135, 46, 135)
    assert sum(file.path.startswith("data/data/") and file.kind == "file" for file in files) == 46


def test_modes_and_owners_are_kept(unpacked) -> None:
    spool = unpacked("localdisk-killed") / "spool"
    (spool / "meta").chmod(0o2770)
    with snapshot(spool / "meta", spool / "data") as snap:
        files = {file.path: file for file in snap.files}
    assert (files["meta"].kind, files["meta"].mode) == ("directory", 0o2770)
    message = next(file for path, file in files.items() if path.startswith("data/data/") and file.kind == "file")
    assert message.mode == 0o600
    assert all(os.path.dirname(path) in files for path in files if "/" in path), "every folder on the way is there"
