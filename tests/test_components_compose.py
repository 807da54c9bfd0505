"""Redis, Prometheus, configuration and image digests of a site in containers: stored, verified, lost, and back."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from compose_site import clear_project, needs_docker
from servers import scraped, wait_for

from kumodr.lab.compose.project import read_environment
from kumodr.lab.opening import open_any

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a command of kumodr with --json in the lab's folder; return its document. The lab is cleared away after."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "c"), "XDG_STATE_HOME": str(tmp_path / "s")}

    def command(*words: str, good: tuple[int, ...] = (0,)) -> Any:
        line = [sys.executable, "-m", "kumodr", *words, "--json"]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode in good, done.stdout + done.stderr
        return json.loads(done.stdout)

    yield command
    world = tmp_path / "lab" / "world" / "world.json"
    if world.exists():
        clear_project(json.loads(world.read_text())["project"])


def plan(site: Path, known: dict[str, str]) -> str:
    """Given the site's project and its ports, return a plan for kumodr on the host, beside Docker."""
    return json.dumps(
        {
            "version": 1,
            "site": "boxes",
            "vault": {"url": "kept/vault"},
            "state": "state",
            "runtime": {
                "kind": "compose", "directory": str(site), "kumod": "kumod", "redis": "redis",
                "prometheus": "kumo-prometheus",
            },
            "components": {
                "config": {"paths": [str(site / "lab.json")]},
                "redis": {"url": "redis://127.0.0.1:6379", "through": "exec"},
                "prometheus": {"url": f"http://127.0.0.1:{known['KUMO_PROMETHEUS_PORT']}"},
                "images": {},
            },
        }
    )  # fmt: skip


@needs_docker
def test_a_site_in_containers_is_stored_verified_lost_and_back(run: Run, tmp_path: Path) -> None:
    lab, key = tmp_path / "lab", str(tmp_path / "identity.txt")
    run("lab", "up", str(lab), "--runtime", "compose", "--bare")
    site = open_any(lab)
    known = read_environment(lab / "site")
    prometheus = f"http://127.0.0.1:{known['KUMO_PROMETHEUS_PORT']}"
    project = known["COMPOSE_PROJECT_NAME"]
    (tmp_path / "kumodr.yaml").write_text(plan(lab / "site", known))
    subprocess.run(["docker", "exec", f"{project}_redis_1", "redis-cli", "SET", "throttle", "7"], check=True)
    wait_for("a scrape", lambda: scraped(prometheus))

    run("vault", "init", "--identity-out", key)
    assert all(each["level"] != "bad" for each in run("check", good=(0, 3))["findings"] if each["place"] != "vault")
    stored = run("backup")["components"]
    assert set(stored) == {"config", "redis", "prometheus", "images"}
    assert stored["redis"]["facts"]["keys"] == 1
    assert stored["images"]["facts"]["services"] == 4 and stored["images"]["facts"]["missing"] == 0
    assert stored["config"]["facts"]["services"] == 4
    facts = run("verify", "--restore", "--identity", key)["facts"]
    assert facts["redis"]["loaded"] == 1
    assert facts["prometheus"]["samples"] == stored["prometheus"]["facts"]["samples"] > 0

    site.wipe()
    run("restore", "--to", str(tmp_path / "back"), "--identity", key, good=(0, 3))
    assert f"KUMO_NODE_ID={known['KUMO_NODE_ID']}\n" in (tmp_path / "back/config/environment.kumod").read_text()
    run("lab", "up", str(lab), "--restored", str(tmp_path / "back"))
    words = ["docker", "exec", f"{project}_redis_1", "redis-cli", "GET", "throttle"]
    assert subprocess.run(words, check=True, capture_output=True).stdout == b"7\n"
    for name in ("policy/init.lua", "docker-compose.yml", "monitoring/prometheus.yml"):
        assert (lab / "site" / name).is_file()
    prometheus = f"http://127.0.0.1:{read_environment(lab / 'site')['KUMO_PROMETHEUS_PORT']}"
    started = httpx.get(f"{prometheus}/api/v1/status/runtimeinfo", timeout=5).json()["data"]["startTime"]
    query = {"query": "min_over_time(timestamp(up)[1h:1s])"}
    oldest = httpx.get(f"{prometheus}/api/v1/query", params=query, timeout=5).json()["data"]["result"]
    assert min(float(each["value"][1]) for each in oldest) < datetime.fromisoformat(started).timestamp()
