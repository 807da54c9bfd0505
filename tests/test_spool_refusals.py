"""What is in the way of a snapshot: each has its named error, and nothing is left behind."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict
from spool_samples import key, meta, write_spool

from kumodr import errors
from kumodr.source import Gone
from kumodr.spool import pinned
from kumodr.spool.kind import kind_of
from kumodr.spool.live import live_files
from kumodr.spool.localdisk import path_of
from kumodr.spool.openfile import open_read_only
from kumodr.spool.snapshot import snapshot


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Scratch views are made here, and none may be left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def made(tmp_path: Path, kind: str = "rocksdb", count: int = 3) -> Path:
    identifiers = [key(number=number) for number in range(count)]
    bodies = {each: each * 10 for each in identifiers}
    write_spool(tmp_path / "spool", kind, dict.fromkeys(identifiers, meta()), bodies)
    return tmp_path / "spool"


def hold(spool: Path, **options: int) -> None:
    with snapshot(spool / "meta", spool / "data", **options) as snap:
        assert snap.validate().problem is None


def test_kinds_are_found_out_and_absence_is_named(tmp_path: Path) -> None:
    spool = made(tmp_path, "localdisk")
    assert kind_of(spool / "meta") == "localdisk"
    assert kind_of(spool / "meta", "rocksdb") == "rocksdb"
    with pytest.raises(errors.SpoolMissing, match="nowhere"):
        hold(tmp_path / "nowhere")
    (tmp_path / "empty" / "meta").mkdir(parents=True)
    with pytest.raises(errors.SpoolMissing, match="neither"):
        hold(tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.SpoolMissing):
        kind_of(tmp_path / "file")


@pytest.mark.parametrize(
    "text", [b"", b"MANIFEST-000005", b"../../etc/passwd\n", b"MANIFEST-000005\nMANIFEST-000006\n"]
)
def test_a_current_that_names_no_manifest_is_damage(tmp_path: Path, text: bytes) -> None:
    spool = made(tmp_path)
    (spool / "data" / "CURRENT").write_bytes(text)
    with pytest.raises(errors.SpoolDamaged, match="CURRENT"):
        hold(spool)


def test_a_missing_current_or_manifest_is_damage(tmp_path: Path) -> None:
    spool = made(tmp_path)
    (manifest,) = (spool / "meta").glob("MANIFEST-*")
    manifest.unlink()
    with pytest.raises(errors.SpoolDamaged, match="MANIFEST"):
        hold(spool, attempts=3)
    (spool / "meta" / "CURRENT").unlink()
    with pytest.raises(errors.SpoolDamaged, match="CURRENT is missing"):
        hold(spool)


def test_a_database_without_identity_is_read(tmp_path: Path) -> None:
    spool = made(tmp_path)
    (spool / "meta" / "IDENTITY").unlink()
    hold(spool)


def test_links_and_pipes_in_a_spool_are_not_followed(tmp_path: Path) -> None:
    spool = made(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    (spool / "meta" / "000999.sst").symlink_to(secret)
    with pytest.raises(errors.SpoolUnreadable, match="000999"):
        hold(spool)
    (spool / "meta" / "000999.sst").unlink()
    os.mkfifo(spool / "meta" / "000998.log")
    with pytest.raises(errors.SpoolUnreadable):
        hold(spool)


@pytest.mark.parametrize("what", ["manifest", "current", "log"])
def test_a_spool_that_never_holds_still_is_named_after_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Something is changed between each listing and its acceptance."""
    data = made(tmp_path) / "data"
    (manifest,) = data.glob("MANIFEST-*")
    real, pauses, count = os.listdir, [], iter(range(900_000, 999_999))

    def listdir(place: object) -> list[str]:
        names = real(place)
        number = next(count)
        if what == "manifest":
            with manifest.open("ab") as file:
                file.write(b"\0")
        elif what == "log":
            (data / f"{number}.log").write_bytes(b"")
        else:
            (data / f"MANIFEST-{number}").write_bytes(manifest.read_bytes())
            (data / "CURRENT").write_text(f"MANIFEST-{number}\n")
        return names

    monkeypatch.setattr(pinned.os, "listdir", listdir)
    said = {"manifest": "manifest grew", "current": "CURRENT changed", "log": "write-ahead logs changed"}
    with pytest.raises(errors.SpoolChanging, match=said[what]):
        pinned.pin(data, attempts=7, pause=pauses.append)
    assert len(pauses) == 7
    assert sum(pauses) < 1


def test_a_spool_that_is_replaced_while_it_is_read_is_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is swapped for another spool between listing and accepting; the second attempt sees the new one."""
    spool, other = made(tmp_path / "one"), made(tmp_path / "two", count=5)
    real = os.listdir
    swapped: list[bool] = []

    def listdir(place: object) -> list[str]:
        names = real(place)
        if isinstance(place, int) and not swapped:
            swapped.append(True)
            (spool / "data").rename(tmp_path / "old")
            (other / "data").rename(spool / "data")
        return names

    monkeypatch.setattr(pinned.os, "listdir", listdir)
    database = pinned.pin(spool / "data", attempts=5)
    try:
        assert database.retries == 1
        assert database.status.st_ino == (spool / "data").stat().st_ino
    finally:
        database.close()


def test_more_files_than_the_soft_limit_are_held(tmp_path: Path) -> None:
    spool = made(tmp_path)
    for number in range(900_000, 900_120):
        (spool / "data" / f"{number}.sst").write_bytes(b"")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        hold(spool)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));"
        "from kumodr.cli.main import main; sys.exit(main(['spool', 'status', '--spool', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", limited, spool], capture_output=True, text=True)
    assert done.returncode == errors.FAILED
    assert "raise the limit of open files" in done.stderr


def test_a_large_message_that_ends_before_it_is_read_is_gone_and_not_counted(tmp_path: Path) -> None:
    large, small = key(number=1), key(number=2)
    bodies = {large: b"x" * (2 << 20), small: b"s"}
    write_spool(tmp_path / "spool", "localdisk", dict.fromkeys(bodies, meta()), bodies)
    spool = tmp_path / "spool"
    with snapshot(spool / "meta", spool / "data") as snap:
        for file in snap.files:
            if file.size >= 1 << 20:
                assert file.content.read(100, 5) == b"xxxxx"
                (spool / "data" / path_of(large)).write_bytes(b"another size")
                with pytest.raises(errors.SpoolChanging):
                    file.content.read(0, 5)
                (spool / "data" / path_of(large)).unlink()
                with pytest.raises(Gone):
                    file.content.read(0, 5)
        census = snap.validate()
    assert (census.data_count, census.body_bytes) == (1, 1)
    assert census.without_body == (large.hex(),)


def test_an_unreadable_message_fails_the_snapshot_and_is_named(tmp_path: Path) -> None:
    spool = made(tmp_path, "localdisk")
    path = spool / "data" / path_of(key(number=1))
    path.unlink()
    path.symlink_to("/etc/hostname")
    with snapshot(spool / "meta", spool / "data") as snap:
        listed = [file.path for file in snap.files]
    assert f"data/{path_of(key(number=1))}" not in listed, "a link is no message"
    with pytest.raises(OSError, match="symbolic link"):
        open_read_only(str(path))


def test_damage_is_the_problem_of_the_census_and_no_crash(tmp_path: Path) -> None:
    spool = made(tmp_path, count=400)
    table = next(iter(sorted((spool / "data").glob("*.sst"))))
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 0x10
    table.write_bytes(data)
    with snapshot(spool / "meta", spool / "data") as snap:
        census = snap.validate()
    assert census.problem is not None
    assert census.problem.startswith("data: ")
    assert census.unreadable == (census.problem,)


def test_a_process_that_dies_while_reading_is_damage_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dying.chmod(0o755)
    spool = made(tmp_path)
    monkeypatch.setattr(sys, "executable", str(dying))
    with snapshot(spool / "meta", spool / "data") as snap:
        census = snap.validate()
    assert census.problem == "reading the spool ended the process that read it (signal 11)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_scratch_view_is_removed_whatever_ends_the_command(tmp_path: Path, scratch: Path, number: int) -> None:
    """Even SIGKILL: the process that reads sees that its parent is gone. Here it waits to be listened to."""
    spool = made(tmp_path, count=3000)
    run = subprocess.Popen(
        [sys.executable, "-c", _HOLD, spool], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "1\n"
    assert wait_for(lambda: list(scratch.glob("*/data/CURRENT")) != [])
    run.send_signal(number)
    _, said = run.communicate(timeout=20)
    if number != signal.SIGKILL:
        assert run.returncode == errors.INTERRUPTED
        assert "interrupted" in said
        assert list(scratch.iterdir()) == []
    assert wait_for(lambda: list(scratch.iterdir()) == [])


_HOLD = """
import sys, time
from pathlib import Path
from kumodr.cli.main import main
from kumodr.spool.snapshot import snapshot
class Verb:
    def add_arguments(parser): pass
    def run(arguments, terminal):
        with snapshot(Path(sys.argv[1], "meta"), Path(sys.argv[1], "data")) as held:
            held.examine("vet", now="2030-01-01T00:00:00+00:00", max_age=1)
            print(1, flush=True)
            time.sleep(60)
sys.modules["kumodr.cli.status"] = Verb
sys.exit(main(["status"]))
"""


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_no_room_for_a_scratch_view_is_named(tmp_path: Path) -> None:
    spool = made(tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], capture_output=True)
    if mount.returncode != 0:
        pytest.skip("this machine lets nobody mount a small file system")
    try:
        status = (
            "import sys; from kumodr.cli.main import main; sys.exit(main(['spool', 'status', '--spool', sys.argv[1]]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", status, spool],
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(small)},
        )
        assert done.returncode == errors.FAILED
        assert "no room for a scratch view" in done.stderr
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_blob_files_belong_to_the_snapshot(tmp_path: Path) -> None:
    """KumoMTA sets no blob files; a build or option that does must not lose mail."""
    from kumodr.source import Pinned

    folder = tmp_path / "data"
    options = Options(raw_mode=True)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(100)
    database = Rdict(str(folder), options)
    for number in range(50):
        database.put(key(number=number), bytes([number]) * 500)
        if number % 10 == 9:
            database.flush()
    database.close()
    held = pinned.pin(folder, attempts=3)
    try:
        live = live_files(Pinned(held.manifest.descriptor), held.manifest.status.st_size)
        assert live is not None
        assert {file.name for file in held.tables if live.holds(file.name)} == {file.name for file in held.tables}
        assert len(live.blobs) == 5
    finally:
        held.close()
    with snapshot(folder, folder) as snap:
        census = snap.validate()
    assert (census.problem, census.data_count) == (None, 50)
