"""Runbooks of the operator's own: what is right runs, what is wrong is named with its line, nothing is interpreted."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import pytest
import yaml
from ran import RunSite, says
from run_child import start

from kumodr import errors
from kumodr.runbooks.registry import runbook_of
from kumodr.runbooks.runs import listed
from kumodr.runbooks.session import Stopped
from kumodr.runbooks.state import state_in
from kumodr.runbooks.written.model import SAMPLE, json_schema
from kumodr.runbooks.written.read import read_runbook

HEAD = "version: 1\nname: mine\nsteps:\n"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


def test_the_sample_is_a_runbook_and_the_schema_says_the_same(tmp_path: Path) -> None:
    assert len(read_runbook(written(tmp_path, SAMPLE))["steps"]) == 6
    jsonschema.validate(yaml.safe_load(SAMPLE), json_schema())
    for wrong in ({"version": 2}, {"version": 1, "name": "x", "steps": []}, {"name": "mine"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json_schema())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: steps: Field required"),
        ("- a\n- b\n", "line 1: a runbook is a mapping"),
        ("version: 1\nname: [", "line 3"),
        (HEAD + "  - &a {name: a, command: [ls]}\n  - *a\n", "aliases"),
        (HEAD + "  - !!python/object/apply:os.system [touch pwned]\n", "steps.0"),
        (HEAD + "  - {name: a, command: ls -l}\n", "line 4: steps.0.command"),
        (HEAD + "  - {name: a, command: []}\n", "line 4: steps.0.command"),
        (HEAD + "  - {name: a, command: [ls, 5]}\n", "line 4: steps.0.command.1"),
        (HEAD + '  - {name: a, command: ["ls\\0"]}\n', "line 4: steps.0.command.0"),
        (HEAD + "  - {name: a}\n", "line 4: step a has none of them"),
        (HEAD + "  - {name: a, command: [ls], ask: sure?}\n", "line 4: step a has command and ask"),
        (HEAD + "  - {name: a, ask: sure?, confirm: yes?}\n", "line 4: step a asks already"),
        (HEAD + "  - {name: a, ask: sure?}\n  - {name: a, ask: sure?}\n", "line 5: the step name a is taken"),
        (HEAD + "  - {name: run, ask: sure?}\n", "line 4: the step name run is taken"),
        (HEAD + "  - {name: ../a, ask: sure?}\n", "line 4: steps.0.name"),
        (HEAD + "  - {name: a, ask: sure?, on_failure: explode}\n", "line 4: steps.0.on_failure"),
        (HEAD + "  - {name: a, command: [ls], on_failure: undo}\n", "line 4: step a is to be undone"),
        (HEAD + "  - {name: a, command: [ls], proof: {}}\n", "line 4: proof of step a: give exactly one"),
        (HEAD + "  - {name: a, command: [ls], budget: soon}\n", "is no duration"),
        (HEAD + "  - {name: a, command: [ls], budget: 1000000d}\n", "is no duration"),
        (HEAD + "  - {name: a, kumodr: [explode]}\n", "kumodr 'explode' cannot be a step"),
        (HEAD + "  - {name: a, kumodr: [runs, resume]}\n", "kumodr 'runs' cannot be a step"),
        (HEAD + "  - {name: a, http: {url: 'file:///etc/passwd'}}\n", "line 4: steps.0.http.url"),
        (HEAD + "  - {name: a, http: {url: 'http://me:secret@host/'}}\n", "line 4: steps.0.http.url"),
        (HEAD + "  - {name: a, ask: x, shell: rm}\n", "line 4: steps.0.shell"),
        (HEAD + "  - {name: a, name: b, ask: x}\n", "stands there twice"),
        (HEAD.replace("mine", "Mine!") + "  - {name: a, ask: x}\n", "line 2: name"),
        (HEAD + "  - " + "[" * 5000 + "]" * 5000 + "\n", "line "),
        (HEAD + "".join(f"  - {{name: s{number}, ask: x}}\n" for number in range(201)), "line 3: steps"),
        ("x" * (1 << 20) + "y", "line 1: this is no runbook"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(errors.RunbookInvalid) as caught:
        read_runbook(written(tmp_path, text))
    assert any(said in mistake for mistake in caught.value.mistakes), caught.value.mistakes
    assert not Path("pwned").exists()


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    site = RunSite(tmp_path)
    (site.folder / "bad.yaml").write_text(HEAD + "  - {name: a}\n  - {name: b}\n")
    failed = site.document("runs", "start", "bad.yaml", code=2)
    assert failed["error"] == "RunbookInvalid"
    assert [mistake.partition(":")[0] for mistake in failed["mistakes"]] == ["line 4", "line 5"]
    assert site.run("runs", "start", "missing.yaml", code=2)
    assert not site.state.exists()


@pytest.fixture
def server() -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = {"/good": 200, "/moved": 302}.get(self.path, 500)
            self.send_response(status)
            self.send_header("Location", "/good")
            self.end_headers()
            self.wfile.write(b"all is \x1b[31mwell" if status == 200 else b"")

        def log_message(self, *_words: object) -> None:
            return

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_every_kind_of_step_runs_and_nothing_goes_through_a_shell(server: str, tmp_path: Path) -> None:
    site = RunSite(tmp_path)
    odd = "$(touch pwned); `touch pwned` && touch pwned"
    file = site.write(
        {"name": "backup", "kumodr": ["backup"]},
        {"name": "odd", "command": [sys.executable, "-c", "import sys; print(sys.argv[1])", odd]},
        {"name": "there", "command": says("made"), "already": {"command": ["test", "-e", "log"]}},
        {"name": "again", "command": says("made"), "already": {"command": ["test", "-e", "log"]}},
        {"name": "good", "http": {"url": f"{server}/good", "contains": "well"}, "proof": {"command": ["true"]}},
        {"name": "sure", "ask": "Sure?"},
        {"name": "named", "command": [sys.executable, "-c", "import os; print(os.environ['KUMODR_RUN'])"]},
    )
    done = site.document("runs", "start", file, "--yes", code=0)
    texts = {entry["step"]: entry["text"] for entry in done["entries"] if entry["phase"] == "act"}
    assert texts["odd"] == odd
    assert texts["named"] == done["run"]
    assert "\x1b" not in texts["good"]
    assert site.lines("log") == ["made"]
    checks = [entry["status"] for entry in done["entries"] if entry["phase"] == "check"]
    assert checks == ["open", "already"]
    assert not list(site.folder.glob("pwned"))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"http": {"url": "SERVER/bad"}}, "answers 500, not 200"),
        ({"http": {"url": "SERVER/moved"}}, "answers 302, not 200"),
        ({"http": {"url": "SERVER/good", "contains": "ill"}}, "does not hold 'ill'"),
        ({"http": {"url": "http://127.0.0.1:1/"}}, "does not answer"),
        ({"command": ["/nonexistent/program"]}, "/nonexistent/program cannot be run"),
        ({"command": ["true"], "proof": {"command": ["false"]}}, "false ended with 1"),
        ({"kumodr": ["restore", "--to", "kumodr.yaml"]}, "kumodr restore ended with"),
    ],
)
def test_a_step_that_fails_says_why_and_the_run_stays(
    step: dict[str, object], said: str, server: str, tmp_path: Path
) -> None:
    part = json.dumps({"name": "fails"} | step).replace("SERVER", server)
    document = read_runbook(written(tmp_path, f'{{"version": 1, "name": "mine", "steps": [{part}]}}'))
    parameters = {"written": document, "directory": str(tmp_path), "plan": None}
    state = state_in(tmp_path / "state", "primary")
    with pytest.raises(Stopped) as stopped:
        start(state, runbook_of("mine", parameters), parameters)
    assert said in stopped.value.text
    assert [run.standing for run in listed(state)] == ["unfinished"]
