"""`kumodr init` on a project that a real compose tool and Docker run: override files, `.env`, volumes, profiles."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose_site import IMAGE, docker_reason, make_image
from tests.discovered_site import POLICY, Machine, risks
from tests.servers import free_port

NO_DOCKER = docker_reason()
MAY_SKIP = "CI" not in os.environ or shutil.which("docker") is None

pytestmark = pytest.mark.skipif(NO_DOCKER is not None and MAY_SKIP, reason=str(NO_DOCKER))

COMPOSE = f"""version: "3.9"
x-usual: &usual
  image: "{IMAGE}"
  command: ["/bin/busybox", "sleep", "600"]
  networks: [inside]
services:
  kumod:
    <<: *usual
    environment: {{KUMO_SPOOL: "${{SPOOL}}"}}
    env_file: [mail.env]
    volumes: ["spool:/var/spool/kumomta", "./policy:/opt/kumomta/etc/policy:ro", "./bounces:/bounces"]
  redis:
    <<: *usual
    volumes: [{{type: volume, source: cache, target: /data}}]
  kumo-prometheus:
    <<: *usual
    profiles: [monitoring]
    volumes: ["prom:/prometheus", "./monitoring/prometheus.yml:/etc/prometheus/prometheus.yml:ro"]
networks: {{inside: {{internal: true}}}}
volumes: {{spool: {{}}, cache: {{}}, prom: {{}}}}
"""
OVERRIDE = """version: "3.9"
services:
  kumod:
    ports: ["127.0.0.1:PORT:8000"]
    volumes: ["logs:/var/log/kumomta"]
volumes: {logs: {}}
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "image").mkdir()
    make_image(tmp_path / "image")
    made = Machine(tmp_path)
    made.project = made.project.rename(tmp_path / f"mail-{uuid.uuid4().hex[:8]}")
    project = made.project
    made.environment["PATH"] = os.environ["PATH"]
    for name in ("policy", "monitoring", "bounces"):
        (project / name).mkdir()
    (project / "monitoring" / "prometheus.yml").write_text("{}\n")
    (project / "policy" / "init.lua").write_text(
        POLICY.replace("'/var/spool/kumomta/' ..", "os.getenv 'KUMO_SPOOL' .. '/' ..")
    )
    (project / "docker-compose.yml").write_text(COMPOSE)
    (project / "docker-compose.override.yml").write_text(OVERRIDE.replace("PORT", str(free_port())))
    (project / ".env").write_text("SPOOL=/var/spool/kumomta\n")
    (project / "mail.env").write_text("KUMO_NODE_ID=n1\n")
    yield made
    compose(project, "down", "--volumes", "--timeout=0")


def compose(project: Path, *words: str) -> None:
    newer = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    tool = ["docker", "compose"] if newer else ["docker-compose"]
    subprocess.run([*tool, "--profile=monitoring", *words], cwd=project, check=True, capture_output=True, timeout=120)


def test_a_project_before_and_after_its_first_start(machine: Machine) -> None:
    document = machine.run("init", "--read-policy", expect=3)
    assert "the volume spool, which holds /var/spool/kumomta/meta of kumod, is not there yet" in risks(document)
    assert "kumod does not run: what its image sets in the environment is not known" in risks(document)
    assert "spool" not in document["covered"]
    (machine.project / "kumodr.yaml").unlink()

    compose(machine.project, "up", "-d")
    name = machine.project.name
    volumes = [f"{name}_{each}" for each in ("spool", "logs", "prom")]
    asked = subprocess.run(
        ["docker", "volume", "inspect", "--format={{.Mountpoint}}", *volumes],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    spool, logs, prom = asked.stdout.split()
    document = machine.run("init", "--read-policy", "--profile", "monitoring", expect=3)
    plan = machine.plan()
    assert plan["components"]["spool"] == {"meta": f"{spool}/meta", "data": f"{spool}/data", "kind": "rocksdb"}
    assert plan["components"]["logs"]["directories"] == [logs, str(machine.project / "bounces")]
    assert plan["components"]["prometheus"]["data"] == prom
    assert {Path(each).name for each in plan["components"]["config"]["paths"]} == {
        "docker-compose.yml", "docker-compose.override.yml", ".env", "mail.env", "policy", "monitoring",
            "kumodr.yaml",
    }  # fmt: skip
    assert plan["runtime"]["profiles"] == ["monitoring"] and plan["runtime"]["prometheus"] == "kumo-prometheus"
    assert not any("node id" in each["text"] for each in document["risks"])
    assert plan["components"]["redis"]["url"] == "redis://127.0.0.1:6379"
    assert plan["components"]["redis"]["through"] == "exec" and plan["components"]["images"]
    findings = {each["text"]: each["level"] for each in machine.run("check", "--read-policy", expect=3)["findings"]}
    assert findings["every service runs: redis, kumo-prometheus, kumod"] == "good"
