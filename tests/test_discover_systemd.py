"""`kumodr init` where KumoMTA runs from the package: units, drop-ins, environment files, and no units at all."""

import io
from pathlib import Path

import pytest

from tests.discovered_site import POLICY, Machine, risks


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def installed(machine: Machine, **redis: str) -> Path:
    """Have the units of a mail host in a folder; return it."""
    root = machine.folder / "host"
    machine.spool(root / "spool")
    for name in ("policy", "logs", "more", "prom"):
        (root / name).mkdir()
    policy = POLICY.replace("'/var/spool/kumomta/'", "os.getenv 'KUMO_SPOOL' .. '/'").replace(
        "/bounces", f"{root}/more"
    )
    (root / "policy" / "init.lua").write_text(policy.replace("'/var/log/kumomta'", "os.getenv 'LOGS'"))
    (root / "kumod.env").write_text(f"# settings\n; more\nexport KUMO_SPOOL='{root}/spool'\nLOGS=\\\n{root}/logs\n")
    (root / "arguments").write_text(f'ARGS="--storage.tsdb.path={root}/prom --web.listen-address=0.0.0.0:9099"\n')
    (root / "redis.conf").write_text(
        "# save 1 1\nport 6390\nsave 900 1\n" + "".join(f"{a} {b}\n" for a, b in redis.items())
    )
    (root / "10-local.conf").write_text("[Service]\n")
    machine.unit(
        "kumomta.service", FragmentPath="/lib/systemd/system/kumomta.service", DropInPaths=f"{root}/10-local.conf",
        Environment='KUMO_SPOOL=/overridden "KUMO_NAME=a b"',
        EnvironmentFiles=[f"{root}/absent.env (ignore_errors=yes)", f"{root}/kumod.env (ignore_errors=no)"],
        ExecStart="{ path=/opt/kumomta/sbin/kumod ; argv[]=/opt/kumomta/sbin/kumod --policy "
        f"{root}/policy/init.lua --user kumod ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}",
    )  # fmt: skip
    machine.unit(
        "redis-server.service",
        ExecStart=f"{{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server {root}/redis.conf --daemon no ; x }}",
    )
    machine.unit(
        "prometheus.service",
        EnvironmentFiles=[f"{root}/arguments (ignore_errors=no)"],
        ExecStart="{ path=/usr/bin/prometheus ; argv[]=/usr/bin/prometheus $ARGS ; ignore_errors=no ; }",
    )
    machine.unit("kumo-tsa-daemon.service", ExecStart="{ path=/x ; argv[]=/opt/kumomta/sbin/tsa-daemon ; ignore }")
    return root


def test_a_mail_host_is_covered(machine: Machine) -> None:
    root = installed(machine)
    document = machine.run("init", "--read-policy", "--vault", "s3://bucket/x", expect=3)
    assert document["source"] == "the units of systemd" and document["uncovered"] == []
    assert "admin API is off" in risks(document) and "Redis keeps nothing" not in risks(document)
    plan = machine.plan()
    components = plan["components"]
    assert components["spool"]["meta"] == str(root / "spool" / "meta")
    assert components["logs"]["directories"] == [str(root / "logs"), str(root / "more")]
    assert {str(root / name) for name in ("10-local.conf", "kumod.env", "arguments", "redis.conf", "policy")} <= set(
        components["config"]["paths"]
    )
    assert not any(each.startswith("/lib") for each in components["config"]["paths"])
    assert components["redis"]["url"] == "redis://127.0.0.1:6390" and components["redis"]["data"] is None
    assert components["prometheus"] == {
        "data": str(root / "prom"),
        "url": "http://127.0.0.1:9099",
        "through": "network",
    }
    assert plan["kumod"]["http"] == "http://127.0.0.1:8000"
    runtime = {name: value for name, value in plan["runtime"].items() if value}
    assert runtime == {
        "kind": "systemd", "kumod": "kumomta.service", "redis": "redis-server.service",
        "prometheus": "prometheus.service", "others": ["kumo-tsa-daemon.service"],
    }  # fmt: skip
    found = {each["text"] for each in machine.run("check", "--read-policy", expect=3)["findings"]}
    units = "redis-server.service, prometheus.service, kumo-tsa-daemon.service, kumomta.service"
    assert f"every service runs: {units}" in found


def test_redis_that_forgets_and_one_with_a_password(machine: Machine) -> None:
    installed(machine, save='""', requirepass="hush-hush")
    document = machine.run("init", expect=3)
    assert "Redis keeps nothing over a restart" in risks(document)
    assert any("asks for a password" in each for each in document["uncovered"])
    assert "hush-hush" not in (machine.project / "kumodr.yaml").read_text()


def test_what_cannot_be_read_of_units_is_told(machine: Machine) -> None:
    root = installed(machine)
    for name in ("kumod.env", "redis.conf", "arguments"):
        (root / name).unlink()
        (root / name).mkdir()
    text = "\n".join(machine.run("init", "--read-policy", expect=3)["uncovered"])
    for hint in (
        "kumod.env of kumomta.service is not read: it is no file",
        "redis.conf of redis-server.service is not read: it is no file; run this as root",
        "arguments of prometheus.service is not read",
        "spool: where it is does not follow from the policy's text",
    ):
        assert hint in text, text


def test_a_unit_that_is_named_and_one_that_is_not_there(machine: Machine) -> None:
    assert "systemd has no unit kumomta" in machine.run("init", "--from", "systemd", expect=2)["message"]
    machine.unit("mail.service", ExecStart="{ path=/x ; argv[]=/x ; }")
    assert "'gone.service'" in machine.run("init", "--service", "gone", "--from", "systemd", expect=2)["message"]
    machine.run("init", "--service", "mail", "--from", "systemd", expect=3)
    assert machine.plan()["runtime"]["kumod"] == "mail.service"


def test_without_any_of_it_the_usual_places_and_what_is_said_count(machine: Machine) -> None:
    document = machine.run("init", expect=4)
    assert "holds no spool" in document["message"] and "run this where the compose file is" in document["message"]
    machine.spool(machine.folder / "spool")
    (machine.project / "docker-compose.yml").write_text("not looked at where a spool is named\n")
    words = ("--spool", str(machine.folder / "spool"), "--logs", "/l", "--redis", "redis://h:1", "--http", "http://h:1")
    document = machine.run("init", *words, "--prometheus", "/p", "--prometheus-url", "http://h:2", expect=3)
    plan = machine.plan()
    assert plan["components"]["spool"]["data"] == str(machine.folder / "spool" / "data")
    assert plan["components"]["prometheus"] == {"data": "/p", "url": "http://h:2", "through": "network"}
    assert plan["components"]["redis"]["url"] == "redis://h:1" and plan["kumod"]["http"] == "http://h:1"
    assert plan["runtime"]["kind"] == "none"
    assert any("configuration: give --config" in each for each in document["uncovered"])
    findings = machine.run("check", expect=3)["findings"]
    assert any("does not say how this site's processes run" in each["text"] for each in findings)


def test_in_the_usual_places_the_policy_counts_too(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    root = installed(machine)
    text = POLICY.replace("/var/spool/kumomta", f"{root}/spool").replace("/var/log/kumomta", f"{root}/logs")
    (root / "policy" / "init.lua").write_text(text)
    monkeypatch.setattr("kumodr.discover.usual.POLICY", str(root / "policy" / "init.lua"))
    machine.run("init", "--from", "paths", "--read-policy", expect=3)
    plan = machine.plan()
    assert plan["components"]["spool"]["meta"] == str(root / "spool" / "meta") and plan["runtime"]["kind"] == "none"
    assert plan["components"]["logs"]["directories"] == [str(root / "logs"), "/bounces"]
    assert plan["kumod"]["http"] == "http://127.0.0.1:8000"


class Person(io.StringIO):
    """Somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "read"), [("y\n", True), ("\n", False), ("", False)])
def test_at_a_terminal_permission_is_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, answer: str, read: bool
) -> None:
    root = installed(machine)
    shown = Person()
    monkeypatch.setattr("sys.stdin", Person(answer))
    monkeypatch.setattr("sys.stderr", shown)
    machine.run("init", expect=3, json_wanted=False)
    assert f"Read the policy {root}/policy/init.lua as text" in shown.getvalue()
    directories = machine.plan()["components"]["logs"]["directories"]
    assert (str(root / "more") in directories) == read


def test_a_lab_in_containers_is_not_taken_for_one_of_processes(machine: Machine) -> None:
    (machine.folder / "lab" / "site").mkdir(parents=True)
    (machine.folder / "lab" / "site" / "docker-compose.yml").write_text("services: {}\n")
    document = machine.run("init", "--lab", str(machine.folder / "lab"), expect=2)
    assert "runs by compose; run `kumodr init --read-policy` in" in document["message"]
