"""Messages taken out of a restored copy and put back: exactly, and never lost, whenever it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from rocksdict import Options, Rdict
from spool_samples import NOW, everything, key, meta, write_spool

from kumodr import errors
from kumodr.recover.target import MARKER
from kumodr.spool import quarantine, vet
from kumodr.spool.localdisk import path_of
from kumodr.spool.quarantine import apply, listed, put_back
from kumodr.spool.reader import open_spool
from kumodr.spool.vet import Finding

KINDS = ["rocksdb", "localdisk"]
GOOD, BROKEN, OLD, NO_BODY, NO_META = (key(timedelta(hours=hours), 1) for hours in (1, 2, 2000, 3, 4))
META = {GOOD: meta(), BROKEN: b"{\xff", OLD: meta(), NO_BODY: meta()}
DATA = {GOOD: b"good\r\n", BROKEN: b"\x00\xff" * 3000, OLD: b"", NO_META: b"alone"}


def made(tmp_path: Path, kind: str) -> tuple[Path, Path]:
    write_spool(tmp_path / "spool", kind, META, DATA)
    return tmp_path / "spool" / "meta", tmp_path / "spool" / "data"


def contents(halves: tuple[Path, Path]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    with open_spool(*halves) as spool:
        return dict(spool.entries()), {each: spool.body(each) for each in spool.body_ids()}


def findings(halves: tuple[Path, Path]) -> tuple[Finding, ...]:
    return vet.vet(*halves, "auto", NOW)


BEFORE = ({each.hex(): raw for each, raw in META.items()}, {each.hex(): body for each, body in DATA.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_is_taken_out_and_put_back_exactly(tmp_path: Path, kind: str) -> None:
    halves = made(tmp_path, kind)
    assert contents(halves) == BEFORE
    done = apply(findings(halves), *halves)
    assert sorted(done.moved) == sorted(each.hex() for each in (BROKEN, OLD, NO_BODY, NO_META))
    assert contents(halves) == ({GOOD.hex(): META[GOOD]}, {GOOD.hex(): DATA[GOOD]})
    assert findings(halves) == ()
    held = {each.id: each for each in listed(halves[0])}
    assert {each: held[each].reason for each in held} == {
        BROKEN.hex(): vet.UNPARSABLE, OLD.hex(): vet.TOO_OLD, NO_BODY.hex(): vet.NO_BODY, NO_META.hex(): vet.NO_META
    }  # fmt: skip
    assert (held[BROKEN.hex()].folder / "body.eml").read_bytes() == DATA[BROKEN]
    assert (held[BROKEN.hex()].folder / "meta.json").read_bytes() == META[BROKEN]
    assert (held[NO_BODY.hex()].body_size, held[NO_META.hex()].meta_size) == (None, None)
    modes = {path.stat().st_mode & 0o777 for path in quarantine.folder_of(halves[0]).rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert put_back(held, *halves) == tuple(sorted(held))
    assert contents(halves) == BEFORE
    assert listed(halves[0]) == ()
    assert list(quarantine.folder_of(halves[0]).iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_one_message_is_put_back_and_the_others_stay(tmp_path: Path, kind: str) -> None:
    halves = made(tmp_path, kind)
    apply(findings(halves), *halves)
    put_back([OLD.hex()], *halves)
    assert OLD.hex() in contents(halves)[0]
    assert OLD.hex() not in {each.id for each in listed(halves[0])}
    assert len(listed(halves[0])) == 3
    with pytest.raises(errors.MessageMissing):
        put_back([OLD.hex()], *halves)


def test_a_key_of_another_length_is_taken_out_and_put_back(tmp_path: Path) -> None:
    long = b"x" * 200
    write_spool(tmp_path / "spool", "rocksdb", {long: meta(), GOOD: meta()}, {GOOD: b"g"})
    halves = (tmp_path / "spool" / "meta", tmp_path / "spool" / "data")
    assert apply(findings(halves), *halves).moved == (long.hex(),)
    put_back([long.hex()], *halves)
    assert list(contents(halves)[0]) == sorted([GOOD.hex(), long.hex()])


def test_modes_and_owners_of_files_come_back(tmp_path: Path) -> None:
    halves = made(tmp_path, "localdisk")
    path = halves[0] / path_of(BROKEN)
    path.chmod(0o440)
    before = path.stat()
    apply(findings(halves), *halves)
    assert not path.exists()
    put_back([BROKEN.hex()], *halves)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_new_files_belong_to_the_owner_of_the_spool(tmp_path: Path) -> None:
    halves = made(tmp_path, "rocksdb")
    for half in halves:
        for path in (half, *half.iterdir()):
            os.chown(path, 999, 998)
    apply(findings(halves), *halves)
    for half in halves:
        assert {(path.stat().st_uid, path.stat().st_gid) for path in half.iterdir()} == {(999, 998)}
        assert not (half / "rocksdict-config.json").exists()
        assert not (half / "LOG").exists()


def test_what_is_written_is_of_kumomtas_own_table_format(tmp_path: Path) -> None:
    halves = made(tmp_path, "rocksdb")
    apply(findings(halves), *halves)
    for half in halves:
        assert len(list(half.glob("*.sst"))) > 1
        for table in half.glob("*.sst"):
            assert int.from_bytes(table.read_bytes()[-12:-8], "little") == 5
            assert b"Snappy" in table.read_bytes()


# --- what is refused ---------------------------------------------------------------------------


def refused(halves: tuple[Path, Path]) -> str:
    before = everything(halves[0].parent)
    with pytest.raises(errors.TargetIsLive) as refusal:
        apply((Finding("x", "y", "", GOOD.hex()),), *halves)
    with pytest.raises(errors.TargetIsLive):
        put_back([GOOD.hex()], *halves)
    assert everything(halves[0].parent) == before
    assert refusal.value.exit_code == errors.UNSAFE
    return str(refusal.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spool_without_the_marker_of_a_restore_is_not_changed(tmp_path: Path, kind: str) -> None:
    halves = made(tmp_path, kind)
    (tmp_path / MARKER).unlink()
    assert MARKER in refused(halves)


@pytest.mark.parametrize(("kind", "trace"), [("rocksdb", "LOG"), ("localdisk", "lock")])
def test_a_spool_that_a_server_was_started_on_is_not_changed(tmp_path: Path, kind: str, trace: str) -> None:
    halves = made(tmp_path, kind)
    (halves[1] / trace).write_bytes(b"")
    assert "a mail server has been started on it" in refused(halves)


def test_a_spool_that_is_locked_is_not_changed(tmp_path: Path) -> None:
    halves = made(tmp_path, "rocksdb")
    hold = (
        "import sys; from rocksdict import *; d = Rdict(sys.argv[1], Options(raw_mode=True));"
        "print(1, flush=True); sys.stdin.read()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", hold, halves[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "1\n"
        assert f"process {server.pid} holds its lock" in refused(halves)
    finally:
        server.kill()
        server.communicate()


def test_halves_that_lie_apart_are_not_changed(tmp_path: Path) -> None:
    here, there = made(tmp_path / "one", "rocksdb"), made(tmp_path / "two", "rocksdb")
    assert "one directory" in refused((here[0], there[1]))


def test_another_message_under_the_same_id_is_not_overwritten(tmp_path: Path) -> None:
    halves = made(tmp_path, "localdisk")
    apply(findings(halves), *halves)
    path = halves[0] / path_of(OLD)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"another")
    with pytest.raises(errors.TargetIsLive, match="something else"):
        put_back([OLD.hex()], *halves)
    assert path.read_bytes() == b"another"
    assert OLD.hex() in {each.id for each in listed(halves[0])}


# --- killed at any moment ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_stop_between_copying_and_deleting_the_next_run_goes_on(tmp_path: Path, kind: str) -> None:
    """The message is in quarantine, its body is deleted from the spool, and its metadata is not."""
    halves = made(tmp_path, kind)
    apply(findings(halves), *halves)
    write_back(halves, kind, OLD)
    assert [each.id for each in findings(halves)] == [OLD.hex()]
    apply(findings(halves), *halves)
    (held,) = [each for each in listed(halves[0]) if each.id == OLD.hex()]
    assert (held.folder / "body.eml").read_bytes() == DATA[OLD]
    assert (held.folder / "meta.json").read_bytes() == META[OLD]
    assert findings(halves) == ()


def write_back(halves: tuple[Path, Path], kind: str, identifier: bytes) -> None:
    """Put only the metadata back into the spool, past the quarantine."""
    if kind == "localdisk":
        path = halves[0] / path_of(identifier)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(META[identifier])
        return
    database = Rdict(str(halves[0]), Options(raw_mode=True))
    database.put(identifier, META[identifier])
    database.close()
    for name in ("LOG", "rocksdict-config.json"):
        (halves[0] / name).unlink(missing_ok=True)


APPLY = """
import sys
from datetime import datetime
from pathlib import Path
from kumodr.spool import quarantine, vet
meta, data = Path(sys.argv[1], "meta"), Path(sys.argv[1], "data")
found = vet.vet(meta, data, "auto", datetime.fromisoformat(sys.argv[2]))
print(len(found), flush=True)
if sys.argv[3] == "apply":
    quarantine.apply(found, meta, data)
else:
    quarantine.put_back([each.id for each in quarantine.listed(meta)], meta, data)
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["apply", "put-back"])
def test_killed_at_any_moment_every_byte_is_in_the_spool_or_in_quarantine(tmp_path: Path, kind: str, task: str) -> None:
    old = [key(timedelta(days=30), number) for number in range(300)]
    bodies = {each: each * 20 for each in old}
    write_spool(tmp_path / "spool", kind, dict.fromkeys(old, meta()), bodies)
    halves = (tmp_path / "spool" / "meta", tmp_path / "spool" / "data")
    if task == "put-back":
        apply(findings(halves), *halves)
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2):
        run = subprocess.Popen(
            [sys.executable, "-c", APPLY, tmp_path / "spool", NOW.isoformat(), task], stdout=subprocess.PIPE
        )
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(delay)  # the moment of the kill, not a wait for anything
        run.send_signal(signal.SIGKILL)
        run.communicate()
        metadata, found = contents(halves)
        for each in listed(halves[0]):
            metadata[each.id] = (each.folder / "meta.json").read_bytes()
            found[each.id] = (each.folder / "body.eml").read_bytes()
        assert found == {each.hex(): body for each, body in bodies.items()}
        assert metadata == {each.hex(): meta() for each in old}
    if task == "apply":
        apply(findings(halves), *halves)
        assert contents(halves) == ({}, {})
        assert len(listed(halves[0])) == len(old)
    else:
        put_back([each.id for each in listed(halves[0])], *halves)
        assert contents(halves) == ({each.hex(): meta() for each in old}, {k.hex(): v for k, v in bodies.items()})


def test_a_folder_that_somebody_else_made_is_not_taken_for_a_message(tmp_path: Path) -> None:
    halves = made(tmp_path, "localdisk")
    folder = quarantine.folder_of(halves[0])
    for name, reason in (("a", "{"), ("b", "[]"), ("c", json.dumps({"id": "../x"})), (".d", json.dumps({"id": "00"}))):
        (folder / name).mkdir(parents=True)
        (folder / name / "reason.json").write_text(reason)
    assert listed(halves[0]) == ()
