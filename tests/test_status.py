"""`kumodr status` and the metrics of a loop beside a mail server: running, killed, stopped, seen from elsewhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from servers import free_port, running, wait_for
from test_protect_metrics import DOCS, documented, rules

from kumodr import errors
from kumodr.cli.main import main
from kumodr.clock import system_clock, text_of_time, time_of_text
from kumodr.lab.options import Options
from kumodr.lab.site import Site, create, plan_values
from kumodr.plan.render import render
from kumodr.protect.figures import published
from kumodr.vault.keys import generate_identity
from kumodr.vault.open import create_vault
from kumodr.vault.store import open_store

MESSAGES = 30


class Watched:
    """A lab site, its vault and plan, the loop as a process, and `kumodr status` as it is asked for."""

    def __init__(self, site: Site, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.site = site
        self.folder = folder
        self.capsys = capsys
        self.vault = folder / "vault"
        self.identity = generate_identity()
        create_vault(str(self.vault), [self.identity.recipient], system_clock)
        self.metrics = f"127.0.0.1:{free_port()}"
        values = plan_values(site, str(self.vault))
        self.state = Path(values["state"])
        self.plan = folder / "here" / "kumodr.yaml"
        self.plan.parent.mkdir()
        self.plan.write_text(render(values) + f"\nprotect: {{every: 0.2, heartbeat: 1, metrics: '{self.metrics}'}}\n")
        self.loop: subprocess.Popen[bytes] | None = None

    def protect(self) -> None:
        words = [sys.executable, "-m", "kumodr", "protect", "--plan", str(self.plan)]
        with open(self.folder / "protect.log", "ab") as log:
            self.loop = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        started = text_of_time(system_clock())

        def protected() -> bool:
            found = published(self.state)
            stored = found is not None and {"spool", "config"} <= found.components.keys()
            return stored and found.state == "protected" and str(found.recoverable_until) > started

        wait_for("protection", protected, 30)

    def kill(self) -> None:
        """Kill it, and leave it for a moment as what a parent that does not look leaves."""
        assert self.loop is not None
        self.loop.kill()
        os.waitid(os.P_PID, self.loop.pid, os.WEXITED | os.WNOWAIT)

    def end(self, how: signal.Signals) -> None:
        assert self.loop is not None
        self.loop.send_signal(how)
        self.loop.wait(20)
        self.loop = None

    def load(self) -> None:
        words = ["--to", self.site.smtp, "--record", str(self.folder / "load.jsonl"), "--rate", "0"]
        words += ["--count", str(MESSAGES)]
        subprocess.run([sys.executable, "-m", "kumodr.lab.load", *words], check=True, capture_output=True)

    def status(self, *words: str, expect: int, plan: bool = True) -> Any:
        plan_words = ["--plan", str(self.plan)] if plan else []
        code = main(["status", *plan_words, *words, "--json"])
        document = json.loads(self.capsys.readouterr().out)
        assert code == expect, document
        return document

    def screen(self, *words: str) -> list[str]:
        main(["status", "--plan", str(self.plan), *words])
        return self.capsys.readouterr().out.splitlines()


@pytest.fixture
def watched(
    lab_options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watched]:
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    site = create(tmp_path / "lab", lab_options)
    site.sink_rules(mode="rules", defer_share=0.5)
    site.start(["sink", "kumod"])
    made = Watched(site, tmp_path, capsys)
    yield made
    if made.loop is not None:
        made.end(signal.SIGKILL)
    site.kill()


def test_how_protection_stands_from_the_first_second_to_a_killed_loop(watched: Watched) -> None:
    never = watched.status(expect=errors.IMPERFECT)
    assert never["problems"] == ["nothing is stored yet; run `kumodr protect` as a service, or `kumodr backup` once"]
    assert never["components"][0]["problem"] == "never stored"
    assert (never["met"], never["protection"]["loop"], never["protection"]["recoverable_until"]) == (False, None, None)

    watched.protect()
    watched.load()
    wait_for("the mail in the vault", lambda: published(watched.state).accepted_messages >= MESSAGES)  # type: ignore[union-attr]
    found = watched.status(expect=errors.DONE)
    protection = found["protection"]
    assert (found["met"], found["problems"]) == (True, [])
    assert (protection["running"], protection["state"]) == (True, "protected")
    assert 0 <= protection["recovery_point_age_seconds"] < 5
    assert protection["messages_at_risk"] is not None
    assert protection["upload_ratio"] > 0
    assert protection["base"] == protection["loop"]["base"]
    assert [each["cause"] for each in protection["rebases_last_day"]] == ["first"]
    screen = watched.screen()
    assert screen[0] == "lab: all objectives are met"
    assert [line.split("  ")[0] for line in screen[2:5]] == ["protection", "at risk", "last base"]
    assert any(line.startswith("not proved: last proved good by restore: never; run `kumodr verify") for line in screen)
    assert all(len(line) < 200 for line in screen)

    elsewhere = watched.status("--vault", str(watched.vault), expect=errors.DONE, plan=False)
    assert (elsewhere["site"], elsewhere["protection"]["loop"], elsewhere["protection"]["running"]) == (
        None,
        None,
        False,
    )
    assert elsewhere["protection"]["recovery_point_age_seconds"] < 30
    assert elsewhere["protection"]["messages_at_risk"] is None

    watched.kill()
    found = watched.status(expect=errors.IMPERFECT)
    until = found["protection"]["recoverable_until"]
    newest = f"{time_of_text(until):%Y-%m-%d %H:%M:%S} UTC"
    assert found["problems"][0].startswith("`kumodr protect` was killed, last round at 20")
    assert found["problems"][0].endswith(f": what came in after {newest} is in no copy; start it again")
    assert (found["protection"]["running"], found["protection"]["messages_at_risk"]) == (False, None)
    screen = watched.screen()
    assert (screen[0], screen[1]) == ("lab: 1 problem, worst first", f"PROBLEM: {found['problems'][0]}")
    assert f"all that came in after {newest}" in next(line for line in screen if line.startswith("at risk"))

    watched.end(signal.SIGKILL)
    assert "was killed" in watched.status(expect=errors.IMPERFECT)["problems"][0]
    watched.protect()
    watched.end(signal.SIGTERM)
    assert watched.status(expect=errors.IMPERFECT)["problems"][0].startswith("`kumodr protect` was stopped, last round")


def test_a_proof_that_failed_is_a_problem_and_one_that_held_is_said(watched: Watched) -> None:
    assert main(["backup", "--plan", str(watched.plan)]) == errors.DONE
    key = watched.folder / "identity.txt"
    key.write_text(watched.identity.secret)
    key.chmod(0o600)
    assert main(["verify", "--plan", str(watched.plan), "--restore", "--identity", str(key)]) == errors.DONE
    watched.capsys.readouterr()
    found = watched.status(expect=errors.DONE)
    assert found["protection"]["verified_points"] == {"restore": "lab-1"}
    assert 0 <= (system_clock() - time_of_text(found["protection"]["verified"]["restore"])).total_seconds() < 60
    assert found["protection"]["unproved"] == []
    assert "verified    shallow never · deep never · restore" in "\n".join(watched.screen())
    victim = max((watched.vault / "objects").rglob("*"), key=lambda path: path.is_file() and path.stat().st_mtime)
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    assert main(["verify", "--plan", str(watched.plan), "--deep", "--identity", str(key)]) == errors.FAILED
    assert main(["verify", "--plan", str(watched.plan)]) == errors.DONE, "all objects are there"
    watched.capsys.readouterr()
    assert any("found bad by `verify --deep`" in each for each in watched.status(expect=errors.IMPERFECT)["problems"])


def test_what_anybody_may_have_written_beside_proofs_is_passed_over(watched: Watched) -> None:
    assert main(["backup", "config", "--plan", str(watched.plan)]) == errors.DONE
    watched.capsys.readouterr()
    store = open_store(str(watched.vault))
    good = {"point": "lab-1", "manifest": "x", "level": "restore", "good": True, "problems": 0}
    future = {**good, "time": "2999-01-01T00:00:00Z"}
    deep = b"[" * 100_000
    store.put_if_absent("nodes/lab-deep.json", [deep])
    records: list[bytes] = [b"", deep, b"\xff", json.dumps(future).encode()]
    for wrong in ({"time": 5}, {"time": "x"}, {"level": ["restore"]}, {"level": "\x1b[2J"}, {"point": "lab-9"}):
        records.append(json.dumps({"time": "2026-01-01T00:00:00Z", **good, **wrong}).encode())
    for number, record in enumerate(records):
        store.put_if_absent(f"verified/lab-1/20260101T000000-{number}.json", [record])
    found = watched.status(expect=errors.IMPERFECT)
    assert found["protection"]["verified"] == {}
    assert "\x1b" not in "\n".join(watched.screen())


def test_a_real_prometheus_sees_a_real_loop(watched: Watched) -> None:
    watched.protect()
    watched.load()
    port = free_port()
    folder = watched.folder / "watcher"
    folder.mkdir()
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "metrics.md").read_text(), re.DOTALL)
    document = yaml.safe_load(block.replace("127.0.0.1:9464", watched.metrics).replace("15s", "200ms"))
    document["rule_files"] = [str(DOCS / each) for each in document["rule_files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"global": {"evaluation_interval": "200ms"}, **document}))
    words = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    address = f"http://127.0.0.1:{port}/api/v1"

    def asked(path: str, **parameters: str) -> Any:
        try:
            return httpx.get(f"{address}/{path}", params=parameters, timeout=5).json()["data"]
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def value(query: str) -> float:
        found = asked("query", query=query)
        return float(found["result"][0]["value"][1]) if found and found["result"] else -1.0

    with running("prometheus", *words, f"--web.listen-address=127.0.0.1:{port}", log=folder / "log"):
        wait_for("the mail in Prometheus", lambda: value("kumodr_accepted_messages_total") >= MESSAGES)
        names = {name for name in asked("label/__name__/values") if name.startswith("kumodr_")}
        missing = {"kumodr_last_verified_timestamp_seconds"}
        assert names == documented().keys() - missing, "nothing was verified yet"
        for query in re.findall(r"\| `([^`]+)` \|$", (DOCS / "metrics.md").read_text(), re.MULTILINE):
            assert asked("query", query=query) is not None, query
        assert value("kumodr_protected") == 1
        assert 0 <= value("kumodr_recovery_point_age_seconds") < 5
        assert value("kumodr_uploaded_bytes_total") > 0
        assert abs(value("time() - kumodr_last_round_timestamp_seconds")) < 5
        assert value('kumodr_rebases_total{cause="first"}') == 1
        found = published(watched.state)
        assert found is not None
        assert value("kumodr_stream_epoch") == found.epoch
        wait_for("the rules", lambda: all(each["health"] == "ok" for each in asked("rules")["groups"][0]["rules"]))
        assert {each["name"] for each in asked("rules")["groups"][0]["rules"]} == rules().keys()
        assert asked("alerts")["alerts"] == [] or {each["state"] for each in asked("alerts")["alerts"]} == {"pending"}
        page = httpx.get(f"http://{watched.metrics}/metrics").text
        done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        last = value("kumodr_last_round_timestamp_seconds")
        wait_for("another round", lambda: value("kumodr_last_round_timestamp_seconds") > last)
        assert watched.loop is not None
        watched.loop.send_signal(signal.SIGSTOP)
        hung = time.time()
        try:
            wait_for("the scrape that fails", lambda: value('up{job="kumodr"}') == 0)
        finally:
            watched.loop.send_signal(signal.SIGCONT)
        assert time.time() - hung < 15
