"""kumodr.yaml: loaded, refused with every mistake at once, kept in a cache, explained by schema and sample."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kumodr import errors
from kumodr.plan.load import load_plan, parse_plan
from kumodr.plan.model import Plan
from kumodr.plan.render import SAMPLE, render
from kumodr.plan.schema import json_schema
from kumodr.plan.shape import fields_of
from kumodr.plan.validate import seconds_of
from kumodr.runtimes.compose import ComposeRuntime
from kumodr.runtimes.opening import runtime_of
from kumodr.runtimes.protocol import Runtime

SMALL = """version: 1
site: primary
vault: {url: vault}
state: state
components:
  spool: {meta: spool/meta, data: spool/data}
objectives: {queue: 90s, analytics: 1d}
"""


def mistakes_of(text: str) -> tuple[str, ...]:
    with pytest.raises(errors.PlanInvalid) as caught:
        parse_plan(text.encode(), Path("/site/kumodr.yaml"))
    return caught.value.mistakes


def test_paths_are_relative_to_the_file_and_durations_are_seconds() -> None:
    plan = parse_plan(SMALL.encode(), Path("/site/kumodr.yaml"))
    assert plan.vault.url == "/site/vault"
    assert plan.components.spool is not None
    assert plan.components.spool.data == "/site/spool/data"
    assert plan.objectives.queue == 90
    assert plan.objectives.analytics == 86400
    assert plan.components.redis is None


def test_every_mistake_is_told_at_once_with_its_line_and_what_to_write() -> None:
    mistakes = mistakes_of(
        'version: 2\nsite: "a b"\nvault:\n  ulr: /x\nstate: st\nobjectives: {queue: soon}\ncomponents:\n'
        '  spool: {meta: m}\n  redis: {url: "redis://:pw@h", timeout: -1}\n  spol: 3\n  logs: {directories: /x}\n'
    )
    expected = {
        "line 1:": "choose 1",
        "line 2:": "site 'a b'",
        "line 3:": "vault.url is missing",
        "line 4:": "did you mean 'url'",
        "line 6:": "write it like 15m",
        "line 8:": "components.spool.data is missing",
        "line 9:": "password_file",
        "line 10:": "did you mean 'spool'",
        "line 11:": "components.logs.directories",
    }
    for line, hint in expected.items():
        assert any(each.startswith(line) and hint in each for each in mistakes), (line, hint, mistakes)
    assert all("pw" not in each.replace("password", "") for each in mistakes)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "version is missing"),
        ("[1, 2]", "a plan is a mapping"),
        ("a: [", "line 1"),
        ("version: 1\nversion: 1\n", "stands there twice"),
        ("version: &a 1\nsite: *a\n", "aliases"),
        ("version: !!python/object/apply:os.system [echo]\n", "version: ['echo'] is not allowed"),
        ("{" * 5000, "line 1"),
    ],
)
def test_what_is_no_plan_is_refused_with_a_line(text: str, hint: str) -> None:
    assert any(hint in each for each in mistakes_of(text)), mistakes_of(text)


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=5), st.data())
def test_any_value_anywhere_is_a_plan_or_mistakes(value: Any, data: st.DataObject) -> None:
    document = json.loads(json.dumps(SAMPLE))
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = value
            break
        place = place[key]
    try:
        plan = parse_plan(yaml.safe_dump(document).encode(), Path("/site/kumodr.yaml"))
    except errors.PlanInvalid as error:
        assert error.mistakes
        assert all(each.startswith("line ") for each in error.mistakes)
    else:
        assert isinstance(plan, Plan)


def test_durations() -> None:
    assert [seconds_of(each) for each in ("15m", "2h", "300s", "1d", "1.5h", 20, "20", "5 min")] == [
        900, 7200, 300, 86400, 5400, 20, 20, 300,
    ]  # fmt: skip
    assert [seconds_of(each) for each in ("", "m", "-5m", "0s", True, None, [1])] == [None] * 7


@pytest.mark.parametrize("seconds", [0.5, 0.05, 0.0000001, 90.0, 90.5, 1.0, 3600.0, 1e15])
def test_a_duration_is_read_back_as_it_was_written(seconds: float) -> None:
    text = render({**SAMPLE, "protect": {"every": seconds}})
    assert parse_plan(text.encode(), Path("/x/kumodr.yaml")).protect.every == seconds


@pytest.mark.parametrize(
    ("runtime", "hint"),
    [
        ("{kind: compose, kumod: kumod}", "line 7: runtime.directory is missing"),
        ("{kind: systemd}", "line 7: runtime.kumod is missing: which unit"),
        ("{kind: docker}", "choose 'none', 'compose', 'systemd' or 'process'"),
        ("{kind: [compose]}", "line 7: runtime.kind"),
        ("compose", "line 7: runtime"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_a_mistake(runtime: str, hint: str) -> None:
    mistakes = mistakes_of(SMALL.replace("objectives: {", f"runtime: {runtime}\nobjectives: {{"))
    assert any(hint in each for each in mistakes), mistakes


def test_a_plan_gives_its_runtime() -> None:
    def runtime(text: str) -> Runtime:
        return runtime_of(parse_plan(f"{SMALL}runtime: {text}\n".encode(), Path("/site/kumodr.yaml")), say=print)

    assert isinstance(runtime("{kind: compose, directory: ., files: [a.yml], kumod: mail}"), ComposeRuntime)
    units = runtime("{kind: systemd, kumod: kumomta.service, redis: r.service, others: [t.service, r.service]}")
    assert units.services() == ("r.service", "t.service", "kumomta.service")
    with pytest.raises(errors.LabMissing):
        runtime("{kind: process, directory: absent, kumod: kumod}")
    with pytest.raises(errors.RuntimeUnknown, match="does not say how this site's processes run; set runtime"):
        runtime("{kind: none}")


def test_the_sample_holds_every_key_and_is_a_plan() -> None:
    text = render(SAMPLE)
    assert parse_plan(text.encode(), Path("/x/kumodr.yaml")).site == "primary"

    def keys(shape: type) -> set[str]:
        return {
            name for field in fields_of(shape) for name in (field.name, *(keys(field.nested) if field.nested else ()))
        }

    assert all(f"{key}:" in text for key in keys(Plan))
    uncommented = text.replace('# kind: "auto"', 'kind: "auto"')
    assert parse_plan(uncommented.encode(), Path("/x/kumodr.yaml")).components.spool is not None


def test_the_schema_accepts_what_the_loader_accepts() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(render(SAMPLE)), schema)
    jsonschema.validate(yaml.safe_load(SMALL), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1}, schema)
    assert schema["$defs"]["SpoolPlan"]["properties"]["meta"]["description"]


def test_the_nearest_plan_is_found_upward(tmp_path: Path) -> None:
    (tmp_path / "kumodr.yaml").write_text(SMALL)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert load_plan(None, directory=below, environment={"XDG_CACHE_HOME": str(tmp_path / "c")}).site == "primary"
    with pytest.raises(errors.PlanMissing):
        load_plan(str(below / "none.yaml"))


def test_a_known_plan_loads_the_same_without_pydantic_and_yaml(tmp_path: Path) -> None:
    path = tmp_path / "kumodr.yaml"
    path.write_text(render(SAMPLE))
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    first = load_plan(str(path), environment=environment)
    program = (
        "import sys, json, dataclasses; from kumodr.plan.load import load_plan; plan = load_plan(sys.argv[1]);"
        "assert not {'pydantic', 'yaml'} & set(sys.modules); print(json.dumps(dataclasses.asdict(plan)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(asdict(first)))
    assert load_plan(str(path), environment=environment) == first


@pytest.mark.parametrize("spoil", ["damaged", "writable by others", "text changed"])
def test_a_cache_that_cannot_be_trusted_is_ignored(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "kumodr.yaml"
    path.write_text(SMALL)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    load_plan(str(path), environment=environment)
    (cache,) = (tmp_path / "cache" / "kumodr").iterdir()
    assert cache.stat().st_mode & 0o777 == 0o600
    if spoil == "damaged":
        cache.write_text("{")
    elif spoil == "writable by others":
        cache.write_text(cache.read_text().replace("primary", "foreign"))
        cache.chmod(0o666)
    else:
        path.write_text(SMALL.replace("primary", "second"))
    assert load_plan(str(path), environment=environment).site == ("second" if spoil == "text changed" else "primary")
