"""The benchmark's harness, on a few megabytes: it measures, it tells failure from success, it writes its page."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.mail import messages
from benchmarks.measure import Command, CommandFailed, Usage, measure
from benchmarks.page import write_section
from benchmarks.rounds import Sample, differs, summaries
from benchmarks.spool import dataset
from benchmarks.table import goals, phase_table
from benchmarks.tools import PHASES, TOOLS
from kumodr.spool.identifier import created
from kumodr.spool.metadata import parse

REPOSITORY = Path(__file__).resolve().parent.parent
NEWEST = datetime(2026, 11, 24, 12, tzinfo=UTC)


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the harness as `script/bench` does, apart from what that installs."""
    command = [sys.executable, "-m", "benchmarks", *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


def test_the_tools_to_compare_with_are_measured_in_every_phase(tmp_path: Path) -> None:
    tools = [name for name in TOOLS if name != "kumodr" and shutil.which(name)]  # restic and borg need not be here
    page, figures, work = tmp_path / "page.md", tmp_path / "figures.json", tmp_path / "work"
    page.write_text("# Page\n\n<!-- begin other -->\nkept\n<!-- end other -->\n")
    options = ("--size", "2M", "--rounds", "1", "--only", ",".join(tools), "--work", work)
    done = bench(*options, "--page", page, "--json", figures)
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(figures.read_text())
    assert document["failures"] == {}
    expected = {(phase, tool) for phase in PHASES for tool in tools}
    expected |= {("restore", "restic, synced to disk")} if "restic" in tools else set()
    assert {(each["phase"], each["tool"]) for each in document["samples"]} == expected
    assert all(each["usage"]["seconds"] > 0 and each["stored"] > 500_000 for each in document["samples"])
    assert document["dataset"]["bodies"] >= 2_000_000
    assert document["dataset"]["tail"] > 200_000, "the newest mail must be in the write-ahead log only"
    text = page.read_text()
    assert "kept" in text
    assert all(f"| {PHASES[phase]}" in text for phase in PHASES)
    assert not work.exists()


def test_kumodr_is_measured_and_compared_with_its_goals(tmp_path: Path) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    options = ("--size", "2M", "--rounds", "2", "--only", "kumodr,tar", "--work", tmp_path / "work")
    done = bench(*options, "--page", page, "--json", figures)
    assert done.returncode == 0, done.stderr + done.stdout
    samples = json.loads(figures.read_text())["samples"]
    measured = {(each["phase"], each["tool"], each["round"]) for each in samples}
    expected = {(phase, tool) for phase in PHASES for tool in ("kumodr", "tar")} | {("restore", "kumodr, not vetted")}
    assert measured == {(*each, number) for each in expected for number in (1, 2)}
    assert "≤ 0.20 s" in page.read_text()
    assert "< 300 MiB" in page.read_text()
    assert "| open the databases, read everything |" in page.read_text()


def test_a_tool_that_fails_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "borg").write_text("#!/bin/sh\necho no such repository >&2\nexit 2\n")
    (programs / "borg").chmod(0o755)
    command = [sys.executable, "-m", "benchmarks", "--size", "1M", "--rounds", "1", "--only", "tar,borg"]
    command += ["--work", str(tmp_path / "work"), "--page", str(tmp_path / "page.md")]
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "**borg failed** in prepare" in done.stdout
    assert "no such repository" in done.stdout
    assert "| tar " in (tmp_path / "page.md").read_text()


def test_mail_is_the_same_for_the_same_seed_and_is_what_kumomta_reads() -> None:
    one, two, other = (list(messages(200_000, seed, NEWEST)) for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert sum(len(each.body) for each in one) >= 200_000
    assert len({each.key for each in one}) == len(one)
    for each in one:
        made = created(each.key)
        assert made is not None
        assert NEWEST - timedelta(hours=7) < made <= NEWEST + timedelta(seconds=1)
        assert parse(each.meta).recipients
        assert 1_000 < len(each.body) < 50_000
        assert b"\r\n\r\n" in each.body


def test_a_spool_is_kept_for_the_next_run_of_the_same_size_only(tmp_path: Path) -> None:
    first = dataset(tmp_path / "dataset", 300_000, 1)
    before = (first.spool / "data" / "CURRENT").stat().st_ino
    assert dataset(tmp_path / "dataset", 300_000, 1) == first
    assert (first.spool / "data" / "CURRENT").stat().st_ino == before
    assert dataset(tmp_path / "dataset", 400_000, 1).bodies >= 400_000


def test_memory_and_processor_time_of_children_count() -> None:
    child = (
        "import time; kept = bytearray(80 << 20); end = time.process_time() + 0.3\nwhile time.process_time() < end: 0"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    usage = measure(Command((sys.executable, "-c", parent)))
    assert usage.peak > 80 << 20
    assert usage.processor > 0.3
    assert usage.seconds > 0.3


def test_a_command_that_fails_or_is_not_there_says_so() -> None:
    with pytest.raises(CommandFailed, match="ended with 3: sorry"):
        measure(Command(("sh", "-c", "echo sorry; exit 3")))
    with pytest.raises(CommandFailed, match="does not start"):
        measure(Command(("/nowhere/program",)))


def test_a_command_over_the_limit_is_ended() -> None:
    with pytest.raises(CommandFailed, match="longer than the limit"):
        measure(Command(("sleep", "60")), limit=0.1)


def test_a_restore_that_is_not_the_same_is_noticed(tmp_path: Path) -> None:
    made = dataset(tmp_path / "dataset", 300_000, 1)
    copy = tmp_path / "copy"
    shutil.copytree(made.spool, copy)
    assert differs(made.spool, copy) is None
    log = next((copy / "data").glob("*.log"))
    log.write_bytes(log.read_bytes()[:-1])
    assert differs(made.spool, copy) == f"data/{log.name} came back changed"
    log.unlink()
    assert differs(made.spool, copy) == f"data/{log.name} did not come back"


def test_goals_and_ratios_come_from_the_medians() -> None:
    times = {"kumodr": (1.0, 2.0, 9.0), "restic": (5.0, 6.0, 7.0)}
    samples = [
        Sample(tool, phase, number, Usage(seconds, seconds, 200 << 20), 5_000_000)
        for phase in PHASES
        for tool, all_seconds in times.items()
        for number, seconds in enumerate(all_seconds)
    ]
    found = summaries(samples)
    reached = {row.split("|")[1].strip(): row.split("|")[3:5] for row in goals(found)[2:]}
    assert [cell.strip() for cell in reached["first backup"]] == ["3.00 ×", "yes"]
    assert [cell.strip() for cell in reached["unchanged backup"]] == ["2.00 s", "no"]
    assert [cell.strip() for cell in reached["peak memory, every phase"]] == ["200 MiB", "yes"]
    table = phase_table("restore", found, 10_000_000)
    assert "kumodr  | 2.00 s | 1.00–9.00 | 5 MB/s |" in table[2]
    assert "3.00 ×" in table[3]
    assert goals([each for each in found if each.tool == "restic"]) == []


def test_a_section_replaces_only_itself(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    write_section(page, "one", "first \\1")
    write_section(page, "two", "second")
    write_section(page, "one", "third \\1")
    text = page.read_text()
    assert text.startswith("# Benchmarks")
    assert "first" not in text
    assert text.index("third \\1") < text.index("second")
    assert text.count("<!-- begin one -->") == 1


@pytest.mark.parametrize("passes", [True, False])
def test_trials_are_run_and_recorded_whether_they_pass_or_not(tmp_path: Path, passes: bool) -> None:
    test = tmp_path / "test_some_trials.py"
    test.write_text(
        "import json, os\n"
        "def test_them():\n"
        "    count = int(os.environ['KUMODR_TRIALS'])\n"
        "    rows = [{'broken_by': 'kill -9', 'lost': 0}]\n"
        "    with open(os.environ['KUMODR_TRIALS_REPORT'], 'w') as file:\n"
        "        json.dump({'trials': count, 'by_way': rows}, file)\n"
        f"    assert {passes}\n"
    )
    page = tmp_path / "page.md"
    done = bench("trials", "--count", "7", "--trials", test, "--work", tmp_path / "work", "--page", page)
    assert done.returncode == (0 if passes else 1), done.stderr
    text = page.read_text()
    assert ("FAILED" in text) is not passes
    assert "| trials |      7 |" in text
    assert "| kill -9   |    0 |" in text


def test_trials_without_a_report_leave_the_page_alone(tmp_path: Path) -> None:
    test = tmp_path / "test_nothing.py"
    test.write_text("def test_nothing():\n    assert True\n")
    done = bench("trials", "--trials", test, "--work", tmp_path / "work", "--page", tmp_path / "page.md")
    assert done.returncode == 1
    assert "wrote no report" in done.stderr
    assert not (tmp_path / "page.md").exists()


@pytest.mark.parametrize(
    "words", [("--size", "lots"), ("--size", "0"), ("--only", "rsync"), ("--only", ""), ("--rounds", "0")]
)
def test_a_wrong_word_is_refused(words: tuple[str, str]) -> None:
    assert bench(*words).returncode == 2


def test_a_spool_is_reconciled_with_its_logs_and_the_counts_are_those_that_were_made(tmp_path: Path) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    sizes = ("--records", "30000", "--messages", "3000")
    done = bench("ledger", *sizes, "--work", tmp_path / "work", "--page", page, "--json", figures)
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(figures.read_text())
    assert document["made"]["expected"]["to_send"] == 1800
    assert {name for name, each in document["usages"].items() if each["seconds"] > 0} == {
        "logs to Parquet", "plan, from Parquet", "plan, from raw logs",
    }  # fmt: skip
    assert "≤ 60 s, 1 GiB" in page.read_text()
    assert not (tmp_path / "work").exists()
