"""The ledger as Parquet: every record of a real server, lines of any kind, the component, and the page's questions."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import zstandard
from captured import written_out
from hypothesis import given, settings
from hypothesis import strategies as st
from reconcile_samples import UNTIL, record, write_log
from spool_samples import key

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.components.ledger import LedgerComponent, parquet_name
from kumodr.components.registry import NAMES, configured, vetter
from kumodr.ledger import segments
from kumodr.ledger.convert import COLUMNS, Segment, convert
from kumodr.ledger.database import open_database
from kumodr.ledger.frames import is_whole
from kumodr.ledger.records import parse
from kumodr.ledger.segments import read_records, segment_paths
from kumodr.plan.model import Components, LogsPlan, Plan, VaultPlan
from kumodr.reconcile.treatments import MEANING

REPOSITORY = Path(__file__).resolve().parent.parent
CAPTURES = ["localdisk-killed", "rocksdb-killed", "rocksdb-killed-long-segment", "rocksdb-expired", "logs-xfer-source"]
ROWS = "SELECT type, id, recipient, sender, queue, epoch_us(event_time) AS event, size, code, content, segment"


def converted(paths: list[Path], target: Path, memory: str = "448MiB") -> tuple[str, ...]:
    with open_database({target.parent, *(each.parent for each in paths)}, memory=memory) as database:
        found = [Segment(each, f"1-logs/{each.name}", each.stat().st_size) for each in paths]
        return convert(database, found, target)


def ask(question: str, file: Path | str) -> list[tuple[Any, ...]]:
    return duckdb.connect().execute(question.replace("?", f"'{file}'")).fetchall()


def plan(tmp_path: Path, *logs: Path) -> Plan:
    parts = Components(logs=LogsPlan(tuple(map(str, logs))))
    return Plan(1, "lab", VaultPlan("/v"), str(tmp_path / "state"), parts)


@settings(max_examples=80, deadline=None)
@given(
    frames=st.lists(st.tuples(st.binary(max_size=3000), st.integers(0, 3000), st.booleans()), max_size=3),
    cut=st.integers(0),
)
def test_whether_a_segment_is_whole_is_told_as_the_reader_tells_it(
    tmp_path_factory: pytest.TempPathFactory, frames: list[tuple[bytes, int, bool]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("frames") / "1"
    content = b"".join(
        zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=not checksum).compress(text + b"r" * run)
        for text, run, checksum in frames
    )
    path.write_bytes(content[: len(content) - cut % (len(content) + 1)])
    records = read_records(path)
    list(records)
    assert is_whole(path) == (records.finished or path.stat().st_size == 0)
    path.write_bytes(content + b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc")
    assert is_whole(path)


@pytest.mark.parametrize("name", CAPTURES)
def test_every_record_and_recipient_of_a_capture_is_a_row(unpacked, tmp_path: Path, name: str) -> None:
    paths = list(segment_paths(unpacked(name) / "logs"))
    expected: Counter[tuple[Any, ...]] = Counter()
    for path in paths:
        for line in read_records(path):
            each = parse(line)
            assert each is not None
            for recipient in each.recipients or (None,):
                moment = each.event_time.timestamp() if each.event_time else None
                expected[each.type, each.id, recipient, each.sender, each.queue, moment, each.size, each.code] += 1
    assert converted(paths, tmp_path / "l.parquet") == ()
    rows = ask(f"{ROWS} FROM read_parquet(?) WHERE type IS NOT NULL", tmp_path / "l.parquet")
    assert Counter((*row[:5], row[5] / 1e6, *row[6:8]) for row in rows) == expected
    assert (tmp_path / "l.parquet").stat().st_mode & 0o777 == 0o600


LINES = [
    b'{"type":"Reception","id":"' + b"A" * 32 + b'","recipient":["a@x","b@x"],"queue":"camp:ten@x!r","timestamp":5}',
    b'{"type":"Delivery","id":"i","recipient":"\xc3\xa9\\u0000@x","meta":{"tenant":"m"},"queue":"q@x","event_time":"b"}',
    b'{"type":"Odd","id":"i","recipient":[],"size":"big","response":"no","meta":[],"created":99999999999999999999}',
    b'{"type":"Bounce","id":"i","recipient":{"x":1},"response":{"code":550,"content":"' + b"y" * 5000 + b'"}}',
    b'{"type":"XferOut","id":"i","recipient":"a","response":{"content":"new id is ' + b"B" * 32 + b'"},"queue":"u:s@h'
    b'.xfer.kumomta.internal"}',
    b'{"type":"Delivery","id":"i","recipient":"g","delivery_protocol":"HttpInjectionGenerator"}',
]  # fmt: skip
NO_RECORDS = [b"template says hello", b"[1]", b'"x"', b"{", b'{"type":"\xff"}', b"[" * 50_000, b'{"type":null}', b"7"]


def test_lines_of_every_kind_are_rows_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "20261124-1"
    path.write_bytes(zstandard.compress(b"\n".join([*LINES, *NO_RECORDS, b""])))
    assert converted([path], tmp_path / "l.parquet") == ()
    assert ask("SELECT count(*) - count(type) FROM read_parquet(?)", tmp_path / "l.parquet") == [(len(NO_RECORDS),)]
    columns = "type, id, recipient, tenant, campaign, epoch_us(event_time), size, length(content), moved_to, generator"
    rows = ask(f"SELECT {columns} FROM read_parquet(?) WHERE type IS NOT NULL ORDER BY ALL", tmp_path / "l.parquet")
    assert rows == [
        ("Bounce", "i", None, None, None, None, None, 1000, None, False),
        ("Delivery", "i", "g", None, None, None, None, None, None, True),
        ("Delivery", "i", "é\0@x", "m", None, None, None, None, None, False),
        ("Odd", "i", None, None, None, None, None, None, None, False),
        ("Reception", "a" * 32, "a@x", "ten", "camp", 5_000_000, None, None, None, False),
        ("Reception", "a" * 32, "b@x", "ten", "camp", 5_000_000, None, None, None, False),
        ("XferOut", "i", "a", None, None, None, None, 10 + 32, "b" * 32, False),
    ]


def test_cut_damaged_empty_and_foreign_segments_give_what_they_have(tmp_path: Path) -> None:
    lines = [json.dumps(record("Delivery", key(number=number))).encode() for number in range(20_000)]
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(b"\n".join(lines) + b"\n")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0x55
    for name, content in {
        "cut": whole[: len(whole) // 2], "damaged": damaged, "empty": b"", "foreign": b"no segment", "[odd]*": whole,
        "two": whole + whole,
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    problems = {}
    counts = {}
    for name in ("cut", "damaged", "empty", "foreign", "[odd]*", "two"):
        problems[name] = converted([tmp_path / name], tmp_path / "l.parquet")
        counts[name] = ask("SELECT count(type) FROM read_parquet(?)", tmp_path / "l.parquet")[0][0]
        keys = dict(ask("SELECT decode(key), decode(value) FROM parquet_kv_metadata(?)", tmp_path / "l.parquet"))
        assert keys["kumodr.segment"] == f"1-logs/{name}"
        assert keys["kumodr.size"] == str((tmp_path / name).stat().st_size)
        assert ("kumodr.problem" in keys) == bool(problems[name])
    assert {name for name, each in problems.items() if each} == {"damaged", "foreign"}
    assert 0 < counts["cut"] < 20_000
    assert counts["cut"] == sum(parse(line) is not None for line in read_records(tmp_path / "cut"))
    assert counts["damaged"] == sum(parse(line) is not None for line in read_records(tmp_path / "damaged"))
    assert (counts["empty"], counts["foreign"], counts["[odd]*"], counts["two"]) == (0, 0, 20_000, 40_000)
    together = [tmp_path / name for name in ("cut", "damaged", "two", "[odd]*")]
    assert len(converted(together, tmp_path / "l.parquet")) == 1
    assert ask("SELECT count(type) FROM read_parquet(?)", tmp_path / "l.parquet")[0][0] == sum(
        counts[each.name] for each in together
    )


def test_a_line_that_is_too_long_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1"
    long = b'{"type":"Long","sender":"' + b"x" * (40 << 20) + b'"}'
    path.write_bytes(zstandard.compress(LINES[0] + b"\n" + long + b"\n" + LINES[0] + b"\n"))
    assert converted([path], tmp_path / "l.parquet") == (f"{path}: 1 lines are too long",)
    assert ask("SELECT type, count(*) FROM read_parquet(?) GROUP BY 1", tmp_path / "l.parquet") == [("Reception", 4)]
    assert segments.LONGEST_LINE == 16 << 20


def test_what_is_read_can_do_nothing(tmp_path: Path) -> None:
    """Nothing outside is read or written, no extension loads, nothing of it can be changed; memory is bounded."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "secret").write_text("hush")
    (tmp_path / "logs" / "link").symlink_to(tmp_path / "secret")
    with open_database([tmp_path / "logs"], memory="64MiB") as database:
        for statement in (
            f"SELECT * FROM read_text('{tmp_path}/secret')",
            f"SELECT * FROM read_text('{tmp_path}/logs/link')",
            f"SELECT * FROM read_text('{tmp_path}/logs/../secret')",
            f"COPY (SELECT 1) TO '{tmp_path}/new.csv'",
            f"ATTACH '{tmp_path}/other.duckdb'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET memory_limit = '5GB'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                database.run(statement)
        assert database.directory.stat().st_mode & 0o777 == 0o700
        place = database.directory
        assert (
            database.value("SELECT count(DISTINCT i) FROM (SELECT range AS i FROM range(3000000)) numbers") == 3_000_000
        )
    assert not place.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "secret"]


def test_what_a_killed_process_left_is_taken_away_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    program = (
        "import os, sys; from kumodr.ledger.database import open_database\n"
        "with open_database([]) as database:\n"
        "    print(database.directory, flush=True); sys.stdin.read() or os._exit(9)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as living:
        here = Path(living.stdout.readline().strip())
        with subprocess.Popen([sys.executable, "-c", program], **pipes) as killed:
            left = Path(killed.stdout.readline().strip())
            killed.kill()
        assert left.exists()
        with subprocess.Popen([sys.executable, "-c", program], **pipes) as other:
            other.stdout.readline()
            assert not left.exists()
            assert (here / "ledger.duckdb").exists()
            other.stdin.write("end")
        living.stdin.write("end")
    assert list(tmp_path.iterdir()) == []


# --- the component -----------------------------------------------------------------------------


def test_finished_segments_are_stored_once_converted_and_vetted(unpacked, tmp_path: Path) -> None:
    logs = unpacked("rocksdb-killed") / "logs"
    more = tmp_path / "more" / "deep"
    write_log(more, [record("Delivery", key()), record("Bounce", key(), ["a@x", "b@x"])])
    opened = write_log(more, [record("Delivery", key())], "20261124-120000.5")
    opened.chmod(0o644)
    (more / ".hidden").write_bytes(b"")
    ledger = LedgerComponent(plan(tmp_path, logs, more.parent), system_clock)
    finished = [path for path in logs.iterdir() if not path.name.startswith(".") and not path.stat().st_mode & 0o222]
    facts = written_out(ledger, tmp_path / "restored")
    names = {path.name for path in (tmp_path / "restored").iterdir()}
    assert facts.clear["parquet_files"] == len(names) == len(finished) + 1
    assert parquet_name("2-more/deep/20261124-110000.5") in names
    verdict = vetter("ledger", system_clock)(tmp_path / "restored")
    assert verdict.problem is None
    assert verdict.facts["parquet_files"] == len(names)
    rows = verdict.facts["rows"]
    assert isinstance(rows, dict)
    assert rows["Bounce"] >= 2
    everything = str(tmp_path / "restored" / "*.parquet")
    assert {name for (name,) in ask("SELECT column_name FROM (DESCRIBE FROM read_parquet(?))", everything)} == set(
        COLUMNS
    )
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "state" / "ledger").iterdir())
    assert [each.level for each in ledger.health()] == ["good"]


def test_nothing_new_means_nothing_done_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    first = write_log(logs, [record("Delivery", key())])
    ledger = LedgerComponent(plan(tmp_path, logs), system_clock)
    written_out(ledger, tmp_path / "one")
    (kept,) = (tmp_path / "state" / "ledger").iterdir()
    before = kept.stat()
    with ledger.capture() as capture:
        fingerprint = capture.fingerprint
    assert fingerprint is not None
    write_log(logs, [record("Bounce", key())], "20261124-130000.5")
    (kept.parent / "left-by-a-crash").write_bytes(b"")
    written_out(ledger, tmp_path / "two")
    assert kept.stat() == before
    assert len(list(kept.parent.iterdir())) == 2
    with ledger.capture() as capture:
        assert capture.fingerprint != fingerprint
    first.unlink()
    written_out(ledger, tmp_path / "three")
    assert len(list(kept.parent.iterdir())) == len(list((tmp_path / "three").iterdir())) == 1


def test_a_restored_ledger_that_is_damaged_is_not_good(tmp_path: Path) -> None:
    logs, back = tmp_path / "logs", tmp_path / "[back]"
    write_log(logs, [record("Delivery", key(number=number)) for number in range(2000)])
    written_out(LedgerComponent(plan(tmp_path, logs), system_clock), back)
    vet = vetter("ledger", system_clock)
    assert vet(back).facts == {"parquet_files": 1, "rows": {"Delivery": 2000}}
    (path,) = back.iterdir()
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be read" in (vet(back).problem or "")
    path.unlink()
    assert vet(back).facts == {"parquet_files": 0, "rows": {}}


def test_the_ledger_follows_the_logs_of_the_plan(tmp_path: Path) -> None:
    assert configured(plan(tmp_path, tmp_path)) == ("logs", "ledger")
    assert configured(Plan(1, "lab", VaultPlan("/v"), "/s", Components())) == ()
    assert "ledger" in NAMES
    missing = LedgerComponent(plan(tmp_path, tmp_path / "none"), system_clock)
    with pytest.raises(errors.LogUnreadable, match="none"), missing.capture():
        pass
    assert [each.level for each in missing.health()] == ["bad"]


def test_a_state_directory_that_cannot_be_written_costs_the_ledger_only(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write_log(logs, [record("Delivery", key())])
    (tmp_path / "state").write_text("a file in its place")
    with pytest.raises(errors.ComponentUnavailable, match="the logs themselves are stored"):
        written_out(LedgerComponent(plan(tmp_path, logs), system_clock), tmp_path / "x")


def test_a_backup_takes_the_ledger_along_and_an_unchanged_one_does_not_load_duckdb(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write_log(logs, [record("Reception", key(), at=UNTIL - timedelta(hours=1)), record("Delivery", key())])
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "kumodr.yaml").write_text(
        f"version: 1\nsite: lab\nvault: {{url: {tmp_path}/vaults/one}}\nstate: state\n"
        f"components:\n  logs: {{directories: [{logs}]}}\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def kumodr(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "kumodr", *words, "--json"],
            cwd=tmp_path / "plan", env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr[-500:]
        return {**json.loads(done.stdout), "imports": done.stderr}

    for name in ("vaults", "keys"):
        (tmp_path / name).mkdir()
    kumodr("vault", "init", "--identity-out", str(tmp_path / "keys" / "key"))
    first = kumodr("backup")
    assert first["components"]["ledger"]["facts"]["parquet_files"] == 1
    assert "duckdb" in first["imports"]
    begun = time.monotonic()
    again = kumodr("backup", "ledger")
    assert time.monotonic() - begun < 20
    assert again["components"]["ledger"] == first["components"]["ledger"]
    assert "duckdb" not in again["imports"]
    kumodr("restore", "--identity", str(tmp_path / "keys" / "key"), "--to", str(tmp_path / "back"))
    assert ask("SELECT count(*) FROM read_parquet(?)", tmp_path / "back" / "ledger" / "*.parquet") == [(2,)]


# --- the page ----------------------------------------------------------------------------------


def test_the_questions_of_the_page_are_answered(unpacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (REPOSITORY / "docs" / "ledger.md").read_text()
    questions = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(questions) >= 5
    logs = unpacked("rocksdb-killed") / "logs"
    for path in segment_paths(logs):
        path.chmod(0o444)
    written_out(LedgerComponent(plan(tmp_path, logs), system_clock), tmp_path / "ledger")
    monkeypatch.chdir(tmp_path)
    database = duckdb.connect()
    for question in questions:
        answer = database.execute(f"SELECT count(*) FROM ({question.strip().rstrip(';')}) answer").fetchone()
        assert answer is not None
        assert answer[0] > 0, question
    columns, _, rest = page.partition("## Questions")
    assert names_of_table(columns) == set(COLUMNS)
    assert names_of_table(rest) == set(MEANING)


def names_of_table(text: str) -> set[str]:
    """Return the names in the first column of the tables in a text."""
    return set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in text.splitlines() if line[:3] == "| `")))
