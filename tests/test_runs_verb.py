"""`kumodr runs`: start, ask, refuse, one at a time, interrupt, resume, the record in the vault."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ran import KUMODR, RunSite, says
from servers import wait_for

from kumodr.clock import system_clock
from kumodr.plan.model import RetentionPlan
from kumodr.vault.open import open_vault
from kumodr.vault.prune import plan_prune


@pytest.fixture
def site(tmp_path: Path) -> RunSite:
    return RunSite(tmp_path)


WAITS = {"name": "waits", "command": ["sh", "-c", "echo $$ > waiting; exec cat gate"], "repeatable": True}


def test_without_a_terminal_what_asks_is_refused_and_nothing_is_done(site: RunSite) -> None:
    file = site.write({"name": "first", "command": says("first")}, {"name": "sure", "ask": "Are you sure?"})
    refused = site.run("runs", "start", file, code=5)
    assert "step sure of maintenance asks" in refused.stderr
    assert "--yes" in refused.stderr
    dry = site.document("runs", "start", file, "--dry-run", code=0)
    assert [each["asks"] for each in dry["steps"]] == [False, True]
    assert site.lines("log") == []
    assert not site.state.exists()
    done = site.document("runs", "start", file, "--yes", code=0)
    asked = next(entry for entry in done["entries"] if entry["phase"] == "confirm")
    assert (asked["status"], asked["text"]) == ("yes", "Are you sure? yes, by --yes")
    assert site.lines("log") == ["first"]


def test_at_a_terminal_it_asks_and_no_stops_before_the_act(site: RunSite) -> None:
    step = {"name": "act", "command": says("act"), "confirm": "Really?", "repeatable": True}
    file = site.write(step, {"name": "fails", "command": ["false"], "on_failure": "ask", "repeatable": True})
    code, shown = at_terminal(site, ["runs", "start", file], [("Really?", "what\n"), ("Really?", "no\n")])
    assert code == 1
    assert "kumodr runs resume maintenance-" in shown
    assert site.lines("log") == []
    code, shown = at_terminal(
        site, ["runs", "resume"], [("Really?", "y\n"), ("What now?", "again\n"), ("now?", "skip\n")]
    )
    assert code == 3
    assert site.lines("log") == ["act"]
    told = site.document("runs", "show", code=0)
    assert told["standing"] == "done"
    decisions = [entry["status"] for entry in told["entries"] if entry["phase"] in ("confirm", "decision")]
    assert decisions == ["yes", "again", "skip"]


def test_a_second_run_is_refused_by_name_of_the_first_and_a_dead_one_holds_nothing(site: RunSite) -> None:
    os.mkfifo(site.folder / "gate")
    file = site.write({"name": "first", "command": says("first")}, WAITS)
    first = site.popen("runs", "start", file)
    wait_for("the first run", lambda: bool(site.lines("waiting")))
    name = site.document("runs", "list", code=0)["runs"][0]
    assert name["standing"] == "running"
    for words in (("start", file), ("resume",), ("abort", name["run"])):
        refused = site.run("runs", *words, code=7)
        assert name["run"] in refused.stderr
    first.kill()
    first.communicate()
    os.kill(int(site.lines("waiting")[0]), signal.SIGKILL)
    assert site.document("runs", "list", code=0)["runs"][0]["standing"] == "unfinished"
    (site.folder / "gate").unlink()
    (site.folder / "gate").write_text("open")
    assert site.document("runs", "resume", code=0)["standing"] == "done"
    assert site.lines("log") == ["first"]


def test_an_interrupt_ends_the_command_and_what_it_ran_and_the_run_goes_on_later(site: RunSite) -> None:
    os.mkfifo(site.folder / "gate")
    command = site.popen("runs", "start", site.write(WAITS))
    wait_for("the command", lambda: bool(site.lines("waiting")))
    command.send_signal(signal.SIGINT)
    out, text = command.communicate(timeout=30)
    assert command.returncode == 130, out + text
    assert "kumodr runs resume maintenance-" in text
    pid = int(site.lines("waiting")[0])
    wait_for("the end of what it ran", lambda: not Path(f"/proc/{pid}").exists())
    (site.folder / "gate").unlink()
    (site.folder / "gate").write_text("open")
    assert site.document("runs", "resume", code=0)["standing"] == "done"


def test_what_hangs_is_broken_off_and_the_run_can_be_resumed(site: RunSite) -> None:
    hangs = {"name": "hangs", "command": ["sh", "-c", "test -e ok || exec sleep 600"], "budget": 0.1, "limit": 0.5}
    file = site.write(hangs | {"repeatable": True}, {"name": "after", "command": says("after")})
    failed = site.run("runs", "start", file, code=1)
    assert "stopped at hangs" in failed.stderr
    (site.folder / "ok").touch()
    done = site.document("runs", "resume", code=0)
    acts = [entry for entry in done["entries"] if entry["phase"] == "act"]
    assert [entry["status"] for entry in acts] == ["failed", "done", "done"]
    assert acts[0]["over_budget"]
    assert site.lines("log") == ["after"]


def test_steps_can_be_left_out_undone_and_paused_before(site: RunSite) -> None:
    undone = {"name": "undone", "command": ["sh", "-c", "echo did >> log; test -e ok"], "repeatable": True}
    undone |= {"undo": {"command": says("undid")}, "on_failure": "undo"}
    file = site.write({"name": "left", "command": says("left")}, undone, {"name": "last", "command": says("last")})
    for option in ("--from", "--pause-before"):
        assert "left, undone, last" in site.run("runs", "start", file, option, "nothing", code=2).stderr
    assert "stopped at undone" in site.run("runs", "start", file, "--from", "undone", code=1).stderr
    assert site.lines("log") == ["did", "undid"]
    (site.folder / "ok").touch()
    paused = site.document("runs", "resume", "--pause-before", "last", code=3)
    assert paused["standing"] == "unfinished"
    assert site.document("runs", "resume", code=0)["standing"] == "done"
    assert site.lines("log") == ["did", "undid", "did", "last"]


def test_an_older_run_is_not_resumed_behind_a_newer_one_and_a_given_up_one_never(site: RunSite) -> None:
    file = site.write({"name": "fails", "command": ["false"], "repeatable": True})
    for _ in range(2):
        site.run("runs", "start", file, code=1)
    newer, older = [each["run"] for each in site.document("runs", "list", code=0)["runs"]]
    refused = site.run("runs", "resume", older, code=5)
    assert newer in refused.stderr
    given_up = site.document("runs", "abort", newer, code=0)
    assert given_up == {"run": newer, "standing": "aborted", "done": [], "record_problem": None}
    assert site.run("runs", "resume", newer, code=5)
    assert site.run("runs", "resume", older, code=1)
    in_vault = site.document("runs", "list", "--vault", str(site.vault), code=0)["runs"]
    assert {each["run"]: each["standing"] for each in in_vault} == {newer: "aborted", older: "unfinished"}


def test_the_record_survives_the_host_sealed_and_prune_lets_it_stay(site: RunSite) -> None:
    secret = "somebody@example.com"
    file = site.write({"name": "tells", "command": ["echo", secret], "why": "to tell"})
    run = site.document("runs", "start", file, code=0)["run"]
    here = site.document("runs", "show", run, code=0)
    vault = open_vault(str(site.vault))
    names = sorted(vault.store.list("runs/"))
    assert names == [f"runs/primary/{run}/{number:08d}.json" for number in range(1, len(names) + 1)]
    assert not any(secret.encode() in vault.store.get(name, 1 << 20) for name in names)
    found = plan_prune(vault, RetentionPlan(grace=0.001), system_clock())
    assert not any(name.startswith("runs/") for name in (*found.to_mark, *found.names))
    site.run("vault", "copy", str(site.vault.parent / "second"), code=0)
    shutil.rmtree(site.state)
    away = ("--vault", str(site.vault.parent / "second"))
    assert [each["run"] for each in site.document("runs", "list", *away, code=0)["runs"]] == [run]
    there = site.document("runs", "show", run, *away, "--identity", str(site.key), code=0)
    assert there == here
    other = site.folder / "other.txt"
    other.write_text("AGE-SECRET-KEY-1" + "Q" * 58)
    assert site.run("runs", "show", run, *away, "--identity", str(other)).returncode == 6


def test_a_vault_that_is_gone_does_not_hold_up_a_run_and_gets_the_record_later(site: RunSite) -> None:
    moves = [sys.executable, "-c", f"import os; os.rename({str(site.vault)!r}, {str(site.vault) + '-away'!r})"]
    file = site.write(
        {"name": "lost", "command": moves}, {"name": "fails", "command": ["test", "-e", "ok"], "repeatable": True}
    )
    stopped = site.run("runs", "start", file, code=1)
    assert "the record in the vault is not whole" in stopped.stderr
    os.rename(f"{site.vault}-away", site.vault)
    (site.folder / "ok").touch()
    done = site.document("runs", "resume", code=0)
    assert len(list(open_vault(str(site.vault)).store.list("runs/"))) == len(done["entries"])


def test_a_command_that_may_have_happened_is_not_repeated_unasked(site: RunSite) -> None:
    os.mkfifo(site.folder / "gate")
    file = site.write({"name": "half", "command": ["sh", "-c", "echo half >> log; echo $$ > waiting; exec cat gate"]})
    command = site.popen("runs", "start", file)
    wait_for("the command", lambda: bool(site.lines("waiting")))
    command.kill()
    command.communicate()
    os.kill(int(site.lines("waiting")[0]), signal.SIGKILL)
    refused = site.run("runs", "resume", code=1)
    assert "may have happened" in refused.stderr
    assert site.lines("log") == ["half"]
    assert site.document("runs", "resume", "--skip", code=3)["skipped"] == 1
    assert site.lines("log") == ["half"]


def at_terminal(site: RunSite, words: list[str], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a command at a terminal, answer each question when it comes, and return exit code and all that was shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*KUMODR, *words], cwd=site.folder, env={**site.environment, "TERM": "xterm", "COLUMNS": "120"},
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    shown, since = "", 0
    waiting = list(answers)
    try:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data.decode("utf-8", "replace")
            if waiting and waiting[0][0] in shown[since:] and "] " in shown[shown.index(waiting[0][0], since) :]:
                since = len(shown)
                os.write(master, waiting.pop(0)[1].encode())
        return process.wait(30), shown
    finally:
        process.kill()
        process.wait()
        os.close(master)
