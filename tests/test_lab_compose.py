"""A mail site in containers: protected by the sidecar under load, lost with its volumes, restored and started."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from compose_site import NO_DOCKER
from servers import wait_for

from kumodr.clock import time_of_text
from kumodr.lab.account import account, sent, taken
from kumodr.lab.compose.images import Images, ensure_images
from kumodr.lab.compose.project import read_environment
from kumodr.runtimes.commands import run

pytestmark = pytest.mark.skipif(NO_DOCKER is not None, reason=str(NO_DOCKER))

KUMOMTA = "kumodr-test-kumomta:1"
"""What stands for a real KumoMTA image: the stand-in's, under another name."""


def kumodr(*words: str, cwd: Path, expect: tuple[int, ...] = (0,)) -> dict[str, Any]:
    command = [sys.executable, "-m", "kumodr", *words, "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode in expect, done.stdout + done.stderr
    return json.loads(done.stdout)


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=300).stdout


class Boxes:
    """A lab in containers, by the commands that a user has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = folder / "world"
        self.site = folder / "site"
        self.key = str(folder / "keys" / "identity.txt")
        self.vault = str(folder / "vault")

    def compose(self, *words: str, expect: tuple[int, ...] = (0,)) -> str:
        """Run docker-compose as the plan's snippets do, in the project's folder."""
        done = subprocess.run(["docker-compose", *words], cwd=self.site, capture_output=True, text=True, timeout=300)
        assert done.returncode in expect, done.stdout + done.stderr
        return done.stdout

    def inside(self, *words: str, expect: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run kumodr in the sidecar."""
        return json.loads(self.compose("exec", "-T", "kumodr", "kumodr", *words, "--json", expect=expect))

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what Docker says of each container, by service."""
        found = json.loads(docker("inspect", *self.compose("ps", "-q").split()))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def variable(self, name: str) -> str:
        return read_environment(self.site)[name]

    def redis(self) -> redis.Redis:
        return redis.Redis(port=int(self.variable("KUMO_REDIS_PORT")), socket_timeout=10)

    def samples(self, at: float) -> int:
        """Return how many series Prometheus knows for a time."""
        port = self.variable("KUMO_PROMETHEUS_PORT")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=up&time={at}", timeout=10) as answer:
            return len(json.load(answer)["data"]["result"])

    def taken(self) -> int:
        return len(taken(self.world))


@pytest.fixture(scope="module")
def images() -> Images:
    return ensure_images(lambda _text: None, run)


@pytest.fixture
def boxes(images: Images, tmp_path: Path) -> Iterator[Boxes]:
    docker("tag", images.kumodr, KUMOMTA)
    made = Boxes(tmp_path / "boxes")
    try:
        yield made
    finally:
        if made.world.exists():
            kumodr("lab", "down", str(made.folder), "--remove", cwd=tmp_path)
        docker("rmi", KUMOMTA)


def test_a_site_is_lost_with_its_volumes_and_comes_back(boxes: Boxes, tmp_path: Path) -> None:
    up = kumodr("lab", "up", str(boxes.folder), "--runtime", "compose", "--kumod-image", KUMOMTA, cwd=tmp_path)
    assert set(up["processes"]) == {"kumod", "redis", "kumo-prometheus", "sink", "kumodr"}
    assert None not in up["processes"].values()
    is_an_ordinary_project_behind_walls(boxes)
    boxes.redis().set("throttle", "17")
    wait_for("a scrape", lambda: boxes.samples(time.time()) > 0)
    scraped = time.time()
    is_backed_up_and_verified(boxes)

    is_killed_and_started_again(boxes)
    node, protected = boxes.variable("KUMO_NODE_ID"), lost_under_load(boxes)
    back = tmp_path / "back"
    until = restored(boxes, back)
    assert until > protected
    variables = (back / "config" / "environment").read_text()
    assert f"KUMO_NODE_ID={node}\n" in variables
    kumodr("spool", "reconcile", "--spool", str(back / "spool"), "--apply", cwd=tmp_path, expect=(0, 3))

    (boxes.world / "control.json").write_text(json.dumps({"mode": "accept"}))
    again = kumodr("lab", "up", str(boxes.folder), "--restored", str(back), cwd=tmp_path)
    assert None not in again["processes"].values()
    everything_arrives_and_nothing_twice(boxes, until)
    assert boxes.variable("KUMO_NODE_ID") == node
    assert boxes.redis().get("throttle") == b"17"
    assert boxes.samples(scraped) > 0
    assert boxes.inside("status")["met"]
    is_taken_down_without_a_trace(boxes)


def is_an_ordinary_project_behind_walls(boxes: Boxes) -> None:
    assert set(boxes.compose("config", "--services").split()) >= {"kumod", "redis", "kumo-prometheus"}
    assert {path.name for path in boxes.site.iterdir()} >= {"docker-compose.yml", ".env", "policy", "monitoring"}
    found = boxes.containers()
    published = [each for one in found.values() for each in (one["HostConfig"]["PortBindings"] or {}).values()]
    assert len(published) == 4
    assert {each["HostIp"] for ports in published for each in ports} == {"127.0.0.1"}
    project = boxes.variable("COMPOSE_PROJECT_NAME")
    networks = {each["Name"]: each for each in json.loads(docker("network", "inspect", *_networks(project)))}
    assert networks[f"{project}_inside"]["Internal"]
    assert networks[f"{project}_front"]["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert len(networks) == 2
    sidecar = found["kumodr"]
    assert set(sidecar["NetworkSettings"]["Networks"]) == {f"{project}_inside"}
    assert sidecar["HostConfig"]["ReadonlyRootfs"]
    writable = {each["Destination"] for each in sidecar["Mounts"] if each["RW"]}
    assert writable == {"/vault", "/var/lib/kumodr", "/prometheus"}
    assert boxes.compose("exec", "-T", "kumodr", "id", "-u").strip() == "1000"
    for folder in ("/var/spool/kumomta", "/project"):
        boxes.compose("exec", "-T", "kumodr", "touch", f"{folder}/written", expect=(1,))
    assert boxes.compose("exec", "-T", "kumod", "id", "-un").strip() == "root"
    owner = boxes.compose("exec", "-T", "kumod", "stat", "-c", "%U:%G %a", "/var/spool/kumomta").strip()
    assert owner == "kumod:kumod 2770"
    bad = [each for each in boxes.inside("check", expect=(3,))["findings"] if each["level"] == "bad"]
    assert bad == []


def is_backed_up_and_verified(boxes: Boxes) -> None:
    """The plan's backup-config.sh, backup-data.sh and verify-backup.sh, each in one command."""
    stored = boxes.inside("backup")
    assert set(stored["components"]) == {"spool", "logs", "ledger", "config", "redis", "prometheus"}
    verified = kumodr(
        "verify", "--deep", stored["point"], "--vault", boxes.vault, "--identity", boxes.key, cwd=boxes.folder
    )
    assert verified["good"]


def is_killed_and_started_again(boxes: Boxes) -> None:
    kumodr("lab", "load", str(boxes.folder), "--count", "50", "--rate", "0", "--deferred", "1", cwd=boxes.folder)
    assert "killed kumod" in kumodr("lab", "break", "kill", str(boxes.folder), cwd=boxes.folder)["did"]
    assert kumodr("lab", "status", str(boxes.folder), cwd=boxes.folder)["processes"]["kumod"] is None
    up = kumodr("lab", "up", str(boxes.folder), cwd=boxes.folder)
    assert up["processes"]["kumod"] is not None
    assert up["mail"]["acknowledged"] == 50


def lost_under_load(boxes: Boxes) -> float:
    """Lose everything but the world while mail comes in; return a time by which mail was protected."""
    words = ["lab", "load", str(boxes.folder), "--rate", "100", "--count", "100000", "--deferred", "0.3"]
    load = subprocess.Popen(
        [sys.executable, "-m", "kumodr", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for("mail that arrives", lambda: boxes.taken() > 50, 60)
        half = time.time()

        def followed() -> bool:
            until = boxes.inside("status", expect=(0, 3))["protection"]["recoverable_until"]
            return until is not None and time_of_text(until).timestamp() > half

        wait_for("protection of what arrived", followed, 60)
        assert load.poll() is None
        kumodr("lab", "break", "wipe", str(boxes.folder), cwd=boxes.folder)
    finally:
        load.terminate()
        load.wait(30)
    assert not boxes.site.exists()
    assert docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={_project(boxes)}") == ""
    return half


def restored(boxes: Boxes, back: Path) -> float:
    """Bring it back from the vault and the key; return the time of the state."""
    words = ["--vault", boxes.vault, "--identity", boxes.key, "--to", str(back)]
    report = kumodr("restore", *words, cwd=boxes.folder, expect=(0, 3))
    spool = next(each for each in report["components"] if each["component"] == "spool")
    assert spool["vetted"]["messages"] > 50
    return time_of_text(spool["until"]).timestamp()


def everything_arrives_and_nothing_twice(boxes: Boxes, until: float) -> None:
    """What was acknowledged by the time of the state arrives, with its id; twice only what left after that time."""
    acknowledged = [each for each in sent(boxes.world) if each.acknowledged < until * 1e9]
    wanted = {each.load_id for each in acknowledged}
    wait_for("every message", lambda: wanted <= {each.load_id for each in taken(boxes.world)}, 90)
    arrived = taken(boxes.world)
    ids = {each.load_id: each.ids[0] for each in sent(boxes.world)}
    assert {each.load_id for each in arrived if each.load_id in ids and each.id != ids[each.load_id]} == set()
    first = {each.load_id: each.time for each in reversed(arrived)}
    twice = account(sent(boxes.world), arrived).duplicates
    # A delivery and the spool's record of it are not the same moment: a second for what lies between.
    assert [each for each in twice if first[each] < (until - 1) * 1e9] == []


def is_taken_down_without_a_trace(boxes: Boxes) -> None:
    project = _project(boxes)
    kumodr("lab", "down", str(boxes.folder), "--remove", cwd=boxes.folder.parent)
    label = f"label=com.docker.compose.project={project}"
    assert docker("ps", "-aq", "--filter", label) == ""
    assert docker("volume", "ls", "-q", "--filter", label) == ""
    assert _networks(project) == []
    assert sorted(path.name for path in boxes.folder.iterdir()) == ["keys", "vault"]


def test_the_image_reads_a_spool_as_a_member_of_its_group(images: Images, unpacked: Any, tmp_path: Path) -> None:
    """The Dockerfile's image; a spool as KumoMTA's package makes it, 2770, of numbers that the image does not know."""
    assert docker("run", "--rm", "--network=none", images.kumodr, "--version").startswith("kumodr 0.")
    spool = unpacked("rocksdb-killed") / "spool"
    for path in [spool, *spool.rglob("*")]:
        os.chown(path, 2999, 2998)
        path.chmod(0o2770 if path.is_dir() else 0o640)
    config = tmp_path / "etc"
    config.mkdir()
    (config / "kumodr.yaml").write_text(
        "version: 1\nsite: here\nvault: {url: /vault}\nstate: /var/lib/kumodr/state\n"
        "components: {spool: {meta: /var/spool/kumomta/meta, data: /var/spool/kumomta/data}}\n"
    )
    tmp_path.chmod(0o755)
    mounts = [f"--volume={spool}:/var/spool/kumomta:ro", f"--volume={config}:/etc/kumodr:ro", "--read-only"]
    mounts += ["--tmpfs=/tmp", "--tmpfs=/var/lib/kumodr:mode=1777", "--cap-drop=ALL", "--network=none"]
    levels: dict[str, str] = {}
    for user in ("1000:2998", "1000:1000"):
        words = ["docker", "run", "--rm", *mounts, f"--user={user}", images.kumodr, "check", "--json"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 3, done.stdout + done.stderr
        levels[user] = next(each["level"] for each in json.loads(done.stdout)["findings"] if each["place"] == "spool")
    assert levels == {"1000:2998": "good", "1000:1000": "bad"}


def _project(boxes: Boxes) -> str:
    return str(json.loads((boxes.world / "world.json").read_text())["project"])


def _networks(project: str) -> list[str]:
    return docker("network", "ls", "-q", "--filter", f"label=com.docker.compose.project={project}").split()
