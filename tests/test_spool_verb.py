"""The verb `kumodr spool`: what it prints, as text and as one document, and its exit codes."""

import json
import sys
from pathlib import Path

import pytest
from spool_samples import key, meta, restored, write_half, write_spool

from kumodr import errors
from kumodr.cli.main import main

GOOD, OTHER = key(number=1), key(number=2)
AT = ["--at", "2026-11-24 12:00+00:00"]


@pytest.fixture
def spool(tmp_path: Path) -> str:
    evil = meta(sender="\x1b]0;owned\x07@a.test", recipient=["x@B.test", "y@c.test"], meta={"tenant": "u", "n": 1})
    bodies = {GOOD: b"Subject: s\r\n\r\nbody \x1b[2J\r\n", OTHER: b"\xff"}
    write_spool(tmp_path / "spool", "rocksdb", {GOOD: meta(), OTHER: evil}, bodies)
    return str(tmp_path / "spool")


def document(capsys: pytest.CaptureFixture[str], *words: str, code: int = errors.DONE) -> dict:
    assert main(["spool", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def text(capsys: pytest.CaptureFixture[str], *words: str, code: int = errors.DONE) -> str:
    assert main(["spool", *words]) == code
    return capsys.readouterr().out


def test_status_counts_both_halves(spool: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "status", "--spool", spool)
    assert (found["kind"], found["meta_count"], found["data_count"], found["problem"]) == ("rocksdb", 2, 2, None)
    assert "messages  2" in text(capsys, "status", "--meta", f"{spool}/meta", "--data", f"{spool}/data")


def test_status_of_a_damaged_spool_is_imperfect(spool: str, capsys: pytest.CaptureFixture[str]) -> None:
    next(iter(Path(spool, "data").glob("*.sst"))).unlink()
    assert "damaged: data: " in text(capsys, "status", "--spool", spool, code=errors.IMPERFECT)


def test_status_explains_by_the_logs_what_is_in_one_half_only(
    unpacked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = unpacked("rocksdb-killed")
    ended = finished_id(site / "logs")
    write_half(tmp_path / "s" / "meta", "rocksdb", {bytes.fromhex(ended): meta(), GOOD: meta()})
    write_half(tmp_path / "s" / "data", "rocksdb", {OTHER: b"x"})
    found = document(capsys, "status", "--spool", str(tmp_path / "s"), "--logs", str(site / "logs"))
    why = {each["id"]: (each["part"], each["why"]) for each in found["explained"]}
    unknown = "never acknowledged, or finished and not in the log"
    assert why == {ended: ("meta", "finished"), GOOD.hex(): ("meta", unknown), OTHER.hex(): ("data", unknown)}
    assert "1 finished" in text(capsys, "status", "--spool", str(tmp_path / "s"), "--logs", str(site / "logs"))


def finished_id(logs: Path) -> str:
    from kumodr.ledger.fates import fates
    from kumodr.ledger.records import parse
    from kumodr.ledger.segments import read_records, segment_paths

    records = (record for path in segment_paths(logs) for line in read_records(path) if (record := parse(line)))
    return next(each.id for each in fates(records).values() if each.finished)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], [GOOD, OTHER]),
        (["--domain", "b.TEST"], [GOOD, OTHER]),
        (["--domain", "c.test"], [OTHER]),
        (["--tenant", "t"], [GOOD]),
        (["--queue", "u@B.test"], [OTHER]),
        (["--sender", "S@A.test"], [GOOD]),
        (["--tenant", "nobody"], []),
        (["--limit", "1"], [GOOD]),
    ],
)
def test_list_chooses(spool: str, capsys: pytest.CaptureFixture[str], words: list[str], wanted: list[bytes]) -> None:
    found = document(capsys, "list", "--spool", spool, *words)
    assert [each["id"] for each in found["messages"]] == [each.hex() for each in wanted]
    lines = text(capsys, "list", "--spool", spool, *words).splitlines()
    assert [line.split()[0] for line in lines] == [each.hex() for each in wanted]


def test_other_peoples_text_cannot_command_the_terminal(spool: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["show", GOOD.hex()], ["show", OTHER.hex()]):
        assert "\x1b" not in text(capsys, *words, "--spool", spool)


def test_show_gives_the_envelope_and_raw_the_exact_bytes(
    spool: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["spool", "show", GOOD.hex(), "--spool", spool, "--raw"]) == errors.DONE
    assert capsysbinary.readouterr().out == b"Subject: s\r\n\r\nbody \x1b[2J\r\n"
    assert main(["spool", "show", OTHER.hex().upper(), "--spool", spool, "--json"]) == errors.DONE
    found = json.loads(capsysbinary.readouterr().out)
    assert (found["recipients"], found["queue"], found["size"]) == (["x@B.test", "y@c.test"], "u@B.test", 1)


def test_vet_says_when_all_is_well_and_when_not(spool: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing found" in text(capsys, "vet", "--spool", spool, *AT)
    old = [*AT[:1], "2027-01-01 00:00+00:00"]
    found = document(capsys, "vet", "--spool", spool, *old, code=errors.IMPERFECT)
    assert {each["reason"] for each in found["findings"]} == {"older than max_age"}
    assert found["moved"] == []
    assert document(capsys, "vet", "--spool", spool, *old, "--max-age", "90d")["findings"] == []


def test_vet_apply_moves_and_quarantine_puts_back(spool: str, capsys: pytest.CaptureFixture[str]) -> None:
    old = ["--at", "2027-01-01 00:00+00:00"]
    assert "2 moved to" in text(capsys, "vet", "--spool", spool, *old, "--apply", code=errors.IMPERFECT)
    assert "nothing found" in text(capsys, "vet", "--spool", spool, *old)
    held = document(capsys, "quarantine", "list", "--spool", spool)
    assert [each["id"] for each in held["messages"]] == [GOOD.hex(), OTHER.hex()]
    assert GOOD.hex() in text(capsys, "quarantine", "list", "--spool", spool)
    assert document(capsys, "quarantine", "put-back", GOOD.hex(), "--spool", spool)["put_back"] == [GOOD.hex()]
    assert "1 messages put back" in text(capsys, "quarantine", "put-back", "--all", "--spool", spool)
    assert len(document(capsys, "list", "--spool", spool)["messages"]) == 2
    assert "nothing" in text(capsys, "quarantine", "list", "--spool", spool)


def test_putting_everything_back_where_nothing_is_does_nothing(spool: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "quarantine", "put-back", "--all", "--spool", spool)["put_back"] == []


def test_apply_to_a_spool_that_may_be_live_is_refused(unpacked, capsys: pytest.CaptureFixture[str]) -> None:
    spool = unpacked("rocksdb-killed") / "spool"
    assert main(["spool", "vet", "--apply", "--spool", str(spool)]) == errors.UNSAFE
    assert "is not changed" in capsys.readouterr().err


def test_export_writes_what_was_chosen(spool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "export", "--spool", spool, "--to", str(tmp_path / "a"), "--tenant", "u")
    assert (found["messages"], found["without_body"]) == (1, [])
    assert [path.name for path in (tmp_path / "a").iterdir()] == [f"{OTHER.hex()}.eml"]
    words = ["export", "--spool", spool, "--to", str(tmp_path / "b"), "--format", "mbox", GOOD.hex()]
    assert "1 messages written" in text(capsys, *words)
    assert main(["spool", *words]) == errors.UNSAFE


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list", "--spool", "/nowhere"], errors.NOTHING),
        (["list", "--meta", "/nowhere"], errors.USAGE),
        (["show", "0" * 32], errors.NOTHING),
        (["show", "zzz"], errors.USAGE),
        (["vet", "--max-age", "soon"], errors.USAGE),
        (["vet", "--at", "soon"], errors.USAGE),
        (["list", "--limit", "-1"], errors.USAGE),
        (["export", "--to", "/tmp/kumodr-never", "0" * 32, "--tenant", "t"], errors.USAGE),
        (["quarantine", "put-back"], errors.USAGE),
        (["quarantine", "put-back", "0" * 32], errors.NOTHING),
        (["fly"], errors.USAGE),
        ([], errors.USAGE),
    ],
)
def test_what_cannot_be_done_has_its_code_and_one_sentence(
    spool: str, capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    place = [] if "--spool" in words or "--meta" in words or not words else ["--spool", spool]
    assert main(["spool", *words, *place]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said


def test_damage_on_the_way_leaves_one_document_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identifiers = [key(number=number) for number in range(2000)]
    write_spool(tmp_path / "spool", "rocksdb", dict.fromkeys(identifiers, meta()), {GOOD: b""})
    table = max((tmp_path / "spool" / "meta").glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    table.write_bytes(data)
    found = document(capsys, "list", "--spool", str(tmp_path / "spool"), code=errors.FAILED)
    assert 0 < len(found["messages"]) < 2000
    assert "cannot be read after" in found["error"]


def test_a_large_list_is_streamed(unpacked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = restored(unpacked("localdisk-killed") / "spool", tmp_path / "copy")
    assert len(document(capsys, "list", "--spool", str(spool))["messages"]) == 46


def test_the_verb_starts_without_what_it_does_not_need() -> None:
    import subprocess

    heavy = "rocksdict pydantic rich redis httpx obstore yaml asyncio aiohttp tempfile subprocess"
    program = (
        f"import sys; import kumodr.spool.snapshot;print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
