"""Logs and configuration: what is stored of them, and what is said when it cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from captured import written_out

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.components.config import ConfigComponent
from kumodr.components.logs import LogsComponent
from kumodr.components.registry import vetter
from kumodr.plan.model import Components, ConfigPlan, LogsPlan, Plan, VaultPlan


def plan(**parts: object) -> Plan:
    return Plan(1, "lab", VaultPlan("/v"), "/s", Components(**parts))  # type: ignore[arg-type] # the plan's own parts


def test_logs_of_several_folders_are_stored_apart_and_counted(unpacked, tmp_path: Path) -> None:
    one, two = unpacked("rocksdb-killed") / "logs", unpacked("logs-xfer-source") / "logs"
    (one / ".tailer-checkpoint").write_text("{}")
    logs = LogsComponent(plan(logs=LogsPlan((str(one), str(two)))), system_clock)
    facts = written_out(logs, tmp_path / "restored")
    assert sorted(path.name for path in (tmp_path / "restored").iterdir()) == ["1-logs", "2-logs"]
    assert not list((tmp_path / "restored").rglob(".*"))
    verdict = vetter("logs", system_clock)(tmp_path / "restored")
    assert verdict.problem is None
    assert (
        verdict.facts["segments"]
        == facts.clear["segments"]
        == sum(1 for each in (one, two) for _ in each.glob("[!.]*"))
    )
    records = verdict.facts["records"]
    assert isinstance(records, dict)
    assert records["Reception"] >= 370
    assert records["XferOut"] > 0
    assert all(each.level == "good" for each in logs.health())


def test_an_open_segment_is_stored_by_the_size_it_had(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a").write_bytes(b"x" * 1000)
    with LogsComponent(plan(logs=LogsPlan((str(folder),))), system_clock).capture() as capture:
        (file,) = capture.files
        with open(folder / "a", "ab") as more:
            more.write(b"y" * 1000)
        assert file.content.read(0, file.size) == b"x" * 1000


def test_a_log_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    logs = LogsComponent(plan(logs=LogsPlan((str(tmp_path / "none"),))), system_clock)
    with pytest.raises(errors.LogUnreadable, match="none"):
        written_out(logs, tmp_path / "x")
    assert logs.health()[0].level == "bad"
    (tmp_path / "none").mkdir()
    assert logs.health()[0].level == "warning"


def test_configuration_keeps_links_modes_and_the_environment(tmp_path: Path) -> None:
    source = tmp_path / "etc"
    (source / "policy").mkdir(parents=True)
    (source / "policy" / "init.lua").write_text("-- policy")
    (source / "dkim.key").write_text("secret")
    (source / "dkim.key").chmod(0o640)
    os.symlink("policy/init.lua", source / "current")
    os.mkfifo(source / "pipe")
    environment = {"KUMO_X": "it's\na $value", "KUMO_Y": "plain", "PATH": "/bin"}
    config = ConfigComponent(
        plan(config=ConfigPlan((str(source), str(source / "dkim.key")))), system_clock, environment
    )
    facts = written_out(config, tmp_path / "restored")
    assert facts.clear == {
        "config_files": 2, "variables": 2, "services": 0, "special_files_left_out": 1, "mounts_left_out": 0,
    }  # fmt: skip
    back = tmp_path / "restored" / "files" / str(source).lstrip("/")
    assert (back / "policy" / "init.lua").read_text() == "-- policy"
    assert (back / "dkim.key").stat().st_mode & 0o777 == 0o640
    assert os.readlink(back / "current") == "policy/init.lua"
    variables = tmp_path / "restored" / "environment"
    assert variables.stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        ["sh", "-c", f'. {variables}; printf %s "$KUMO_X|$KUMO_Y"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "it's\na $value|plain"
    assert vetter("config", system_clock)(tmp_path / "restored").facts == {"config_files": 2, "services": 0}


def test_every_unreadable_file_is_named_at_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a").chmod(0)
    (tmp_path / "c").chmod(0)
    tmp_path.chmod(0o755)
    program = (
        "import sys; from kumodr.components.config import ConfigComponent; from kumodr.plan.model import *\n"
        "from kumodr.clock import system_clock; from kumodr import errors\n"
        "parts = Components(config=ConfigPlan(tuple(sys.argv[1:]), ()))\n"
        "try:\n  with ConfigComponent(Plan(1, 'l', VaultPlan('/v'), '/s', parts), system_clock).capture(): pass\n"
        "except errors.FileUnreadable as error: print(error)"
    )
    words = [sys.executable, "-c", program, *(str(tmp_path / name) for name in "abc"), str(tmp_path / "none")]
    if os.geteuid() == 0:  # root reads everything: give up the capabilities that let it
        words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert all(f"{tmp_path / name} (" in done.stdout for name in ("a", "c", "none")), done.stdout + done.stderr
    assert f"{tmp_path / 'b'} (" not in done.stdout
