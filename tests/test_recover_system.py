"""`kumodr recover system`: from a lab that is gone, or half gone, to one that is proved to work; killed at each act."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from run_child import command_in_child
from servers import wait_for

from kumodr.lab.account import account, sent, taken
from kumodr.lab.options import Options
from kumodr.lab.site import Site, create, open_site, stop_world
from kumodr.mailserver.http import MailServer
from kumodr.mailserver.queues import queues_of
from kumodr.recover.system.runbook import recover_system
from kumodr.runbooks.page import pages
from kumodr.runbooks.runs import listed
from kumodr.runbooks.state import state_in

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs" / "runbooks"
MESSAGES = 60

Each = TypeVar("Each", bound="Disaster")


class Disaster:
    """A lab site under a vault, with mail in its queue that the sink does not take yet."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.lab = folder / "lab"
        self.lab.mkdir(parents=True)
        self.key = folder / "keys" / "identity.txt"
        self.key.parent.mkdir()
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "c"), "XDG_STATE_HOME": str(folder / "s")}
        self.options, self.vault = options, str(folder / "vault")

    def begin(self) -> None:
        """Bring the site up, with a vault and a first recovery point."""
        site = create(self.lab, self.options, vault=self.vault)
        site.sink_rules(mode="rules")
        site.start()
        self.kumodr("vault", "init", "--identity-out", str(self.key))
        self.load("first")
        self.kumodr("backup")

    @property
    def site(self) -> Site:
        return open_site(self.lab)

    def load(self, name: str) -> None:
        """Send mail to recipients that the sink defers."""
        site = self.site
        words = ["--to", site.smtp, "--record", str(site.world / f"load-{name}.jsonl"), "--rate", "0", "--name", name]
        words += ["--count", str(MESSAGES), "--deferred", "1"]
        subprocess.run([sys.executable, "-m", "kumodr.lab.load", *words], check=True, capture_output=True, timeout=60)

    def kumodr(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "kumodr", *words, "--json"], cwd=self.lab, env=self.environment,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    def recover(self, *words: str, code: int = 0) -> Any:
        return self.kumodr("recover", "system", "--identity", str(self.key), "--yes", *words, code=code)

    def queued(self) -> int:
        return queues_of(MailServer(self.site.http).metrics()).depth

    def accounted(self) -> None:
        """Let the world take everything; every message arrives, none twice."""
        site = self.site
        site.sink_rules(mode="accept")
        wait_for("the queue", lambda: self.queued() == 0, 60)
        sums = account(sent(site.world), taken(site.world))
        assert sums.acknowledged
        assert sums.missing == ()
        assert sums.duplicates == ()


@contextmanager
def begun(made: Each) -> Iterator[Each]:
    """Begin a disaster, and leave nothing of it running."""
    try:
        made.begin()
        yield made
    finally:
        if (made.lab / "site" / "site.json").exists():
            made.site.kill()
        stop_world(made.lab)


@pytest.fixture
def disaster(tmp_path: Path, lab_options: Options, request: pytest.FixtureRequest) -> Iterator[Disaster]:
    with begun(Disaster(tmp_path, replace(lab_options, kind=getattr(request, "param", "RocksDB")))) as made:
        yield made


def facts_of(document: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for entry in document["entries"]:
        facts |= entry["facts"]
    return facts


@pytest.mark.parametrize("disaster", ["RocksDB", "LocalDisk"], indirect=True)
def test_a_site_that_is_gone_comes_back_and_loses_and_repeats_nothing(disaster: Disaster) -> None:
    disaster.site.wipe()
    dry = disaster.kumodr("recover", "system", "--identity", str(disaster.key), "--dry-run")
    assert [each["step"] for each in dry["steps"]][:4] == ["assess", "stop", "capture", "choose"]
    assert not (disaster.lab / "site").exists()
    done = disaster.recover(code=3)
    assert "# kumodr node lab " in done["warnings"][0]  # a rebuilt host has a new key, which is to be vouched for
    facts = facts_of(done)
    assert facts["expected"] == facts["loaded"] == MESSAGES
    assert facts["accepted"] < facts["delivered"] or facts["accepted"][:19] == facts["delivered"][:19]
    assert {row["objective"]: row["met"] for row in facts["objectives"]} == {
        "critical_services": True, "full_system": True, "data": True, "queue": True,
    }  # fmt: skip
    disaster.accounted()


def test_a_spool_that_survives_is_captured_first_and_kept(disaster: Disaster) -> None:
    disaster.load("second")
    disaster.site.kill(["kumod"])
    old = {path.name: path.read_bytes() for path in (disaster.site.root / "spool" / "meta").iterdir() if path.is_file()}
    facts = facts_of(disaster.recover(code=3))
    assert facts["survives"]
    assert facts["captured"] == "lab-2"
    assert facts["expected"] == facts["loaded"] == 2 * MESSAGES
    (aside,) = (disaster.site.root / "spool").glob("meta.before-*")
    assert {path.name: path.read_bytes() for path in aside.iterdir() if path.is_file()} == old
    disaster.accounted()


def test_a_surviving_spool_that_is_damaged_is_moved_aside_and_said(disaster: Disaster) -> None:
    disaster.site.stop(["kumod"])
    (disaster.site.root / "spool" / "meta" / "CURRENT").unlink(missing_ok=True)
    done = disaster.recover(code=3)
    facts = facts_of(done)
    assert facts["captured"] is None
    assert any("cannot be captured" in warning for warning in done["warnings"])
    assert facts["loaded"] == MESSAGES
    assert len(list((disaster.site.root / "spool").glob("meta.before-*"))) == 1
    disaster.accounted()


def test_killed_after_every_act_and_resumed_it_ends_the_same(disaster: Disaster) -> None:
    before = Path.cwd()
    os.chdir(disaster.lab)
    words = ["recover", "system", "--identity", str(disaster.key), "--yes", "--json"]
    state = state_in(disaster.lab / "site" / "kumodr-state", "lab")
    steps = recover_system({"plan": str(disaster.lab / "kumodr.yaml")}).names()
    try:
        for step in steps:
            disaster.site.wipe()
            trace = disaster.lab / "world" / "trace"
            code = command_in_child(words, trace, (step, "after"))
            assert code == -9, (step, code, trace.read_text() if trace.exists() else "")
            assert listed(state)[0].standing == "unfinished"
            code = command_in_child(["runs", "resume", "--yes", "--json"], trace)
            assert code == 3, (step, code, trace.read_text() if trace.exists() else "")
            (run,) = listed(state)
            facts = {name: value for entry in run.entries for name, value in entry.facts.items()}
            assert run.standing == "done"
            assert facts["expected"] == facts["loaded"] == disaster.queued() == MESSAGES, step
    finally:
        os.chdir(before)
    disaster.accounted()


def test_what_is_in_the_way_is_said_before_anything_is_touched(disaster: Disaster) -> None:
    other = disaster.key.with_name("other.txt")
    disaster.kumodr("vault", "init", "--url", str(disaster.lab / "other"), "--identity-out", str(other))
    wrong = disaster.kumodr("recover", "system", "--yes", "--identity", str(other), code=1)
    assert "not sealed to this identity" in wrong["message"]
    assert disaster.site.running("kumod")
    disaster.site.wipe()
    http = disaster.kumodr("plan", "show")["kumod"]["http"]
    with socket.create_server(("127.0.0.1", int(http.rpartition(":")[2]))):
        refused = disaster.recover(code=1)
        assert "something else listens at" in refused["message"]
        assert not (disaster.lab / "site" / "spool").exists()
    assert facts_of(disaster.kumodr("runs", "resume", "--yes", code=3))["loaded"] == MESSAGES


def test_on_an_empty_machine_the_vault_and_the_key_are_enough(disaster: Disaster, tmp_path: Path) -> None:
    disaster.site.wipe()
    elsewhere = Disaster(tmp_path / "other", disaster.options)
    target = elsewhere.lab / "new"
    words = ["recover", "system", "--vault", disaster.vault, "--identity", str(disaster.key), "--to", str(target)]
    elsewhere.kumodr(*words, "--dry-run")
    assert not target.exists()
    assert elsewhere.kumodr("recover", "system", "--vault", disaster.vault, code=2)["error"] == "UsageWrong"
    try:
        facts = facts_of(elsewhere.kumodr(*words, "--yes", code=3))
        assert facts["expected"] == facts["loaded"] == MESSAGES
        assert not (disaster.lab / "site").exists()
        site = open_site(target)
        site.sink_rules(mode="accept")
        first = {each.load_id for each in sent(disaster.lab / "world")}
        wait_for("every message", lambda: {each.load_id for each in taken(site.world)} >= first, 60)
        sums = account(sent(disaster.lab / "world"), taken(site.world))
        assert (sums.missing, sums.duplicates) == ((), ())
        again = elsewhere.kumodr(*words, "--yes", "--pause-before", "stop", code=1)
        assert "new key" in again["message"]  # what survives now would be captured by a key that nobody vouched for
    finally:
        if (target / "site" / "site.json").exists():
            open_site(target).kill()


def test_a_vault_that_goes_and_a_server_that_does_not_start_stop_the_run_and_the_next_try_goes_on(
    disaster: Disaster,
) -> None:
    disaster.site.wipe()
    disaster.recover("--pause-before", "restore", code=3)
    os.rename(disaster.vault, f"{disaster.vault}-away")
    gone = disaster.kumodr("runs", "resume", "--yes", code=1)
    assert "stopped at restore" in gone["message"]
    os.rename(f"{disaster.vault}-away", disaster.vault)
    disaster.kumodr("runs", "resume", "--yes", "--pause-before", "start", code=3)
    config = disaster.lab / "site" / "config" / "kumod.json"
    good = config.read_bytes()
    config.write_text("{")
    failed = disaster.kumodr("runs", "resume", "--yes", code=1)
    assert "stopped at start: kumod ended while it was started" in failed["message"]
    config.write_bytes(good)
    assert facts_of(disaster.kumodr("runs", "resume", "--yes", code=3))["loaded"] == MESSAGES
    disaster.accounted()


def test_the_pages_are_those_of_the_runbooks() -> None:
    made = pages()
    assert {path.name: path.read_text() for path in DOCUMENTS.glob("*.md")} == made, "script/runbooks writes them"
