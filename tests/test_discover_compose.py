"""`kumodr init` where KumoMTA runs by compose: what containers see is found here, and what is not is told."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.discovered_site import POLICY, Machine, risks

SERVICES = ("kumod", "redis", "kumo-prometheus")
VOLUMES = ("spool", "logs", "redis", "prom")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def lay_out(machine: Machine) -> dict[str, Any]:
    """Lay the plan's project out (policy/, monitoring/, .env, an override) and return the world of its Docker."""
    project = machine.project
    for name in ("policy", "monitoring", "bounces"):
        (project / name).mkdir()
    (project / "docker-compose.yml").write_text("services: {kumod: {env_file: [mail.env]}}\n")
    (project / "docker-compose.override.yml").write_text("services: {}\n")
    (project / "mail.env").write_text("KUMO_X=1\n")
    (project / ".env").write_text("NODE=1\n")
    (project / "policy" / "init.lua").write_text(POLICY)
    for name in ("prometheus.yml", "rules.yml"):
        (project / "monitoring" / name).write_text("{}\n")
    machine.spool(machine.folder / "volumes" / "spool")
    for name in VOLUMES[1:]:
        (machine.folder / "volumes" / name).mkdir()
    return {
        "services": SERVICES,
        "volumes": {f"mail_{name}": str(machine.folder / "volumes" / name) for name in VOLUMES},
        "running": {"kumod": ["KUMO_NODE_ID=abc", "PATH=/bin"], "redis": [], "kumo-prometheus": []},
        "config": config(project),
    }


def config(project: Path, **changes: dict[str, Any]) -> str:
    """Return what the compose plugin prints of the project, with changes to its services."""

    def volume(name: str, target: str) -> dict[str, Any]:
        return {"type": "volume", "source": name, "target": target, "volume": {}}

    def bind(source: str, target: str) -> dict[str, Any]:
        return {"type": "bind", "source": str(project / source), "target": target, "read_only": True}

    def port(inside: int, outside: str) -> dict[str, Any]:
        return {"mode": "ingress", "host_ip": "127.0.0.1", "target": inside, "published": outside, "protocol": "tcp"}

    services: dict[str, dict[str, Any]] = {
        "kumod": {
            "image": "ghcr.io/kumocorp/kumomta:latest", "command": None, "entrypoint": None,
            "volumes": [volume("spool", "/var/spool/kumomta"), volume("logs", "/var/log/kumomta"),
                        bind("policy", "/opt/kumomta/etc/policy"), bind("bounces", "/bounces")],
            "ports": [port(8000, "18000")],
        },
        "redis": {
            "image": "redis:7", "command": ["redis-server", "--appendonly", "yes"],
            "volumes": [volume("redis", "/data")], "ports": [port(6379, "16379")],
        },
        "kumo-prometheus": {
            "image": "prom/prometheus", "ports": [port(9090, "19090")],
            "command": ["--storage.tsdb.path=/prometheus", "--web.enable-admin-api"],
            "volumes": [volume("prom", "/prometheus"), bind("monitoring/prometheus.yml", "/etc/prometheus/p.yml")],
        },
    }  # fmt: skip
    for name, change in changes.items():
        services.setdefault(name, {}).update(change)
    volumes = {name: {"name": f"mail_{name}"} for name in VOLUMES}
    return json.dumps({"name": "mail", "services": services, "volumes": volumes})


def test_a_whole_project_is_covered(machine: Machine) -> None:
    machine.docker(**lay_out(machine))
    document = machine.run("init", "--read-policy", "--vault", "s3://bucket/mail", expect=3)
    assert document["uncovered"] == []
    assert {each["text"].split(":")[0] for each in document["risks"]} <= {
        "KumoMTA at http", "this host's clock is not synchronised",
    }  # fmt: skip
    plan, volumes, project = machine.plan(), machine.folder / "volumes", machine.project
    components = plan["components"]
    assert components["spool"] == {
        "meta": str(volumes / "spool" / "meta"), "data": str(volumes / "spool" / "data"), "kind": "rocksdb",
    }  # fmt: skip
    assert components["logs"]["directories"] == [str(volumes / "logs"), str(project / "bounces")]
    assert set(components["config"]["paths"]) == {
        str(project / name)
        for name in (
            "docker-compose.yml",
            "docker-compose.override.yml",
            ".env",
            "mail.env",
            "policy",
            "monitoring",
            "kumodr.yaml",
        )
    }
    assert components["redis"]["url"] == "redis://127.0.0.1:16379"
    assert components["redis"]["data"] == str(volumes / "redis")
    assert components["redis"]["through"] == "network" and components["images"]["archives"] is False
    assert components["prometheus"] == {
        "data": str(volumes / "prom"), "url": "http://127.0.0.1:19090", "through": "network",
    }  # fmt: skip
    assert plan["kumod"]["http"] == "http://127.0.0.1:18000"
    runtime = {name: value for name, value in plan["runtime"].items() if value}
    assert runtime == {
        "kind": "compose", "directory": str(project),
        "kumod": "kumod", "redis": "redis", "prometheus": "kumo-prometheus",
    }  # fmt: skip


def test_without_permission_the_policy_is_not_read_and_that_is_said(machine: Machine) -> None:
    machine.docker(**lay_out(machine))
    document = machine.run("init", expect=3)
    assert any("is not read; with --read-policy" in each for each in document["uncovered"])
    assert "/bounces" not in json.dumps(machine.plan()["components"]["logs"])
    assert "the vault" in risks(document)


@pytest.mark.parametrize(
    ("service", "change", "text"),
    [
        ("kumod", {"volumes": []}, "/var/spool/kumomta/meta of kumod is on no volume: it is lost with the container"),
        ("kumod", {"volumes": [], "tmpfs": "/var/spool"}, "/var/spool/kumomta/meta of kumod is in memory"),
        ("kumod", {"volumes": ["/var/spool/kumomta"]}, "is on a volume without a name"),
        ("kumod", {"volumes": ["gone:/var/spool/kumomta"]}, "volume gone, which holds /var/spool/kumomta/meta of kumo"),
        ("kumod", {"ports": []}, 'cannot be asked from this host → publish port 8000 of kumod: `ports: ["'),
        ("redis", {"volumes": []}, "Redis has no volume for its data"),
        ("redis", {"command": ["redis-server", "--save", ""]}, "Redis keeps nothing over a restart"),
        ("redis", {"command": "redis-server --save '' --appendonly no"}, "Redis keeps nothing over a restart"),
        ("kumo-prometheus", {"command": ["--storage.tsdb.path=/prometheus"]}, "admin API is off"),
    ],
)  # fmt: skip
def test_what_is_risky_is_told_with_its_remedy(
    machine: Machine, service: str, change: dict[str, Any], text: str
) -> None:
    machine.docker(**lay_out(machine) | {"config": config(machine.project, **{service: change})})
    assert text in risks(machine.run("init", "--read-policy", expect=3))


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (POLICY.replace("max_segment_duration = '10s',", ""), "max_segment_duration is not set (init.lua line 7)"),
        (POLICY.replace("kumo.start_http", "kumo.start_esmtp_listener { deferred_spool = true } kumo.start_http"),
         "deferred_spool is on in kumo.start_esmtp_listener (init.lua line 11)"),
        (POLICY.replace("0.0.0.0:8000", "127.0.0.1:8000"), "have kumod listen at 0.0.0.0:8000"),
    ],
)  # fmt: skip
def test_what_the_policy_makes_risky(machine: Machine, policy: str, text: str) -> None:
    machine.docker(**lay_out(machine))
    (machine.project / "policy" / "init.lua").write_text(policy)
    assert text in risks(machine.run("init", "--read-policy", expect=3))


def test_a_closed_spool_folder_is_bad(machine: Machine) -> None:
    machine.docker(**lay_out(machine))
    (machine.folder / "volumes" / "spool").chmod(0o2700)
    assert "has mode 2700: KumoMTA, started as root, would see no spool" in risks(machine.run("init", expect=3))


def test_what_a_plan_cannot_cover_is_listed(machine: Machine) -> None:
    world = lay_out(machine)
    more = {
        "dash": {"image": "grafana/grafana", "volumes": ["grafana:/var/lib/grafana", "/var/run/docker.sock:/d.sock"]},
        "whole": {"image": "x", "volumes": [f"{machine.project}:/app", f"{machine.folder}/volumes:/all"]},
        "writes": {"image": "x", "volumes": [f"{machine.folder}/data-of-x:/x"]},
        "cache": {"image": "valkey/valkey:8"},
        "kumodr": {"image": "kumodr:1", "volumes": ["spool:/spool:ro"]},
        "redis-exporter": {"image": "oliver006/redis_exporter"},
        "later": {"image": "x", "profiles": ["extra"]},
        "redis": {"command": ["redis-server", "--requirepass", "hush-hush"]},
    }
    (machine.folder / "data-of-x").mkdir()
    machine.docker(**world | {"config": config(machine.project, **more)})
    document = machine.run("init", "--read-policy", "--config", "/etc/hostname", expect=3)
    text = "\n".join(document["uncovered"])
    for hint in (
        "grafana of dash, at /var/lib/grafana: not covered",
        f"{machine.project} of whole, at /app: it holds live data too",
        f"{machine.folder}/volumes of whole, at /all: it holds live data too",
        f"{machine.folder}/data-of-x of writes, at /x, where it is written to",
        "cache: it is Redis too",
        "later: its profile is not on; --profile extra covers it",
        "redis: it asks for a password",
    ):
        assert hint in text, text
    assert "docker.sock" not in text and "kumodr" not in text.replace("kumodr.yaml", "")
    written = (machine.project / "kumodr.yaml").read_text()
    assert "hush-hush" not in written + json.dumps(document)
    assert machine.plan()["runtime"]["others"] == ["dash", "whole", "writes", "cache", "redis-exporter"]
    assert "/etc/hostname" in machine.plan()["components"]["config"]["paths"]


def test_a_policy_inside_the_image_is_told(machine: Machine) -> None:
    world = lay_out(machine)
    change = {"kumod": {"volumes": ["spool:/var/spool/kumomta"]}}
    machine.docker(**world | {"config": config(machine.project, **change)})
    text = "\n".join(machine.run("init", "--read-policy", expect=3)["uncovered"])
    assert "policy: the policy /opt/kumomta/etc/policy/init.lua is not on this host" in text
    assert "/opt/kumomta/etc/policy, which the mail server uses, is part of its image" in text


@pytest.mark.parametrize(
    ("world", "code", "text"),
    [
        (
            {"trouble": "Cannot connect to the Docker daemon at unix:///x. Is it running?"},
            1,
            "does not answer; start it",
        ),
        ({"trouble": "Got permission denied while trying to connect to the Docker daemon socket"}, 2, "group docker"),
        ({"invalid": "services.kumod Additional property x is not allowed"}, 2, "Additional property x is not allowed"),
        ({"config": "{"}, 2, "is no YAML"),
        ({"config": "services: {}"}, 2, "no service in the compose project"),
        ({"config": "[1, 2]"}, 2, "no service in the compose project"),
        ({"config": "services: {a: {image: kumomta}, b: {image: kumomta}}"}, 2, "a and b in the compose"),
    ],
)
def test_docker_in_the_way_is_one_sentence(machine: Machine, world: dict[str, Any], code: int, text: str) -> None:
    machine.docker(**lay_out(machine) | world)
    document = machine.run("init", expect=code)
    assert text in document["message"] and document["message"].count("\n") == 0
    assert not (machine.project / "kumodr.yaml").exists()


def test_docker_absent_and_a_service_that_is_not_there(machine: Machine) -> None:
    world = lay_out(machine)
    assert "install Docker" in machine.run("init", expect=2)["message"]
    machine.docker(**world)
    assert "choose from: kumod, redis" in machine.run("init", "--service", "gone", expect=2)["message"]
    machine.environment["DOCKER_HOST"] = "ssh://other"
    assert "run on another machine" in machine.run("init", expect=2)["message"]


def test_files_profiles_and_names_are_kept_in_the_plan(machine: Machine) -> None:
    machine.docker(**lay_out(machine))
    (machine.project / "more.yml").write_text("services: {}\n")
    machine.environment["COMPOSE_PROFILES"] = "a,b"
    machine.environment["COMPOSE_FILE"] = "docker-compose.yml:more.yml"
    machine.environment["COMPOSE_PROJECT_NAME"] = "mail"
    machine.run("init", expect=3)
    runtime = machine.plan()["runtime"]
    assert runtime["files"] == [str(machine.project / "docker-compose.yml"), str(machine.project / "more.yml")]
    assert runtime["profiles"] == ["a", "b"] and runtime["project"] == "mail"
    assert str(machine.project / "more.yml") in machine.plan()["components"]["config"]["paths"]


@pytest.mark.parametrize("hostile", ["loop", "fifo", "giant", "binary", "bomb", "broken"])
def test_hostile_files_beside_the_project(machine: Machine, hostile: str) -> None:
    machine.docker(**lay_out(machine))
    file = machine.project / "docker-compose.override.yml"
    file.unlink()
    make: dict[str, Callable[[], object]] = {
        "loop": lambda: file.symlink_to(file.name),
        "fifo": lambda: os.mkfifo(file),
        "giant": lambda: file.write_bytes(b"a" * (2 << 20)),
        "binary": lambda: file.write_bytes(bytes(range(256))),
        "bomb": lambda: file.write_text(
            "a: &a {x: 1}\n" + "".join(f"b{n}: &a {{<<: [*a, *a, *a]}}\n" for n in range(60))
        ),
        "broken": lambda: file.write_text("include: [{path: [a, {b: c}]}\nservices: {x: {extends: 7, env_file: {}}}\n"),
    }
    make[hostile]()
    machine.run("init", "--read-policy", expect=3)
    assert machine.plan()["components"]["spool"]


def test_check_asks_the_running_site(machine: Machine) -> None:
    world = lay_out(machine)
    machine.docker(**world)
    machine.run("init", "--read-policy", expect=3)

    def check(*words: str) -> dict[str, str]:
        return {each["text"]: each["level"] for each in machine.run("check", *words, expect=3)["findings"]}

    assert check()["every service runs: redis, kumo-prometheus, kumod"] == "good"
    machine.docker(**world | {"looping": ["kumod"], "running": {"kumod": []}})
    found = check()
    assert found["kumod ends and is restarted in a loop"] == found["redis does not run: not created"] == "bad"
    changed = config(machine.project, redis={"volumes": []})
    machine.docker(**world | {"config": changed})
    policy = POLICY.replace("/bounces", "/var/log/kumomta/more").replace(
        "'/var/spool/kumomta/'", "'/var/spool/kumomta/x/'"
    )
    (machine.project / "policy" / "init.lua").write_text(policy.replace("max_segment_duration = '10s',", ""))
    assert any("Redis has no volume" in each for each in check())
    text = "\n".join(check("--read-policy"))
    assert "max_segment_duration is not set" in text and "/more, which the plan does not name" in text
    assert "the policy keeps the spool meta in" in text
    machine.docker(**world | {"trouble": "permission denied while trying to connect to the Docker daemon socket at x"})
    assert any("may not be used by this user" in each for each in check())
    (machine.programs / "docker").unlink()
    assert any("docker-compose cannot be run" in each or "docker cannot be run" in each for each in check())
