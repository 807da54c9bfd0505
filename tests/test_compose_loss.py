"""A whole compose project is lost: containers, volumes, networks, folder, images. The commands of
docs/restore-compose.md, run as they stand there, bring it back from the vault and the key alone.
"""

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from compose_site import clear_project, needs_docker
from install_site import Machine, machine
from servers import scraped, wait_for

from kumodr.clock import time_of_text
from kumodr.lab.account import account, sent, taken
from kumodr.lab.compose.images import ensure_images
from kumodr.lab.compose.layout import create_compose
from kumodr.lab.compose.project import read_environment, write_environment
from kumodr.lab.compose.site import ComposeSite
from kumodr.lab.options import Options
from kumodr.protect.figures import published
from kumodr.runtimes.commands import run as run_command

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "restore-compose.md"
CONFIGURATION = (".env", "docker-compose.yml", "policy/init.lua", "policy/kumod.json", "monitoring/prometheus.yml")


def docker(*words: str, given: bytes = b"") -> str:
    return subprocess.run(["docker", *words], input=given, capture_output=True, check=True, timeout=300).stdout.decode()


@dataclass
class Lost:
    """A project that is a user's own: images of its own, no kumodr in it; the world and the vault are outside."""

    home: Machine
    site: ComposeSite
    images: dict[str, str]
    name: str

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{read_environment(self.site.root)['KUMO_PROMETHEUS_PORT']}"

    def redis(self, *words: str) -> str:
        return docker("exec", f"{self.name}_redis_1", "redis-cli", *words).strip()

    def environments(self) -> dict[str, dict[str, str]]:
        return {name: dict(self.site.runtime.environment(name)) for name in self.site.names()}

    def ids(self, command: tuple[str, ...]) -> set[str]:
        return {each["id"] for each in json.loads(self.home.kumodr("spool", "list", *command, json=True))["messages"]}

    def unfinished(self) -> set[str]:
        """The ids of the messages that were acknowledged and that the world has not got, by its own records."""
        done = {each.load_id for each in taken(self.site.world)}
        return {message for each in sent(self.site.world) if each.load_id not in done for message in each.ids}

    def settled(self) -> bool:
        """Whether all has been delivered that the world takes: half of the recipients is deferred."""
        return all(each.recipient.startswith("defer") for each in self.waiting())

    def waiting(self) -> list[Any]:
        done = {each.load_id for each in taken(self.site.world)}
        return [each for each in sent(self.site.world) if each.load_id not in done]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Lost]:
    ready, mark = ensure_images(lambda _text: None, run_command), uuid.uuid4().hex[:8]
    bases = {"KUMO_IMAGE": ready.kumodr, "REDIS_IMAGE": ready.redis, "PROMETHEUS_IMAGE": ready.prometheus}
    images = {
        variable: f"kumodr-loss-{mark}-{variable.partition('_')[0].lower()}:1" for variable in bases
    }  # of its own, so that none is removed that others use
    lab = tmp_path / "lab"
    try:
        for variable, base in bases.items():
            text = f"FROM {base}\nLABEL kumodr.test={mark}-{variable}\n"
            docker("build", "-q", "-t", images[variable], "-", given=text.encode())
        site = create_compose(lab, Options(sidecar=False, retry_interval=2), vault=None, say=lambda _text: None)
        known = read_environment(site.root) | images | {"SINK_IMAGE": images["KUMO_IMAGE"]}
        write_environment(site.root, known)
        site.start()
        with machine(tmp_path / "machine") as home:
            yield Lost(home, site, images, known["COMPOSE_PROJECT_NAME"])
    finally:
        world = lab / "world" / "world.json"
        if world.exists():
            clear_project(json.loads(world.read_text())["project"])
        subprocess.run(["docker", "rmi", "-f", *images.values()], capture_output=True)


def protect(lost: Lost, tmp_path: Path) -> "subprocess.Popen[bytes]":
    """Protect the project as a new user would, with the images; return the loop."""
    folder, home = lost.site.root, lost.home
    home.kumodr("init", "--read-policy", "--vault", str(tmp_path / "vault"), code=3)
    plan = home.folder / "kumodr.yaml"
    text = plan.read_text().replace("archives: false", "archives: true")
    assert "archives: true" in text and f'"{folder}/.env"' in text and str(lost.site.world) not in text
    plan.write_text(text)
    (tmp_path / "stick").mkdir()
    home.kumodr("vault", "init", "--identity-out", str(tmp_path / "stick" / "kumodr-identity.txt"))
    home.kumodr("backup", "config", "redis", "prometheus", "images")
    with open(tmp_path / "protect.log", "wb") as log:
        return subprocess.Popen(
            [home.environment["PATH"].partition(":")[0] + "/kumodr", "protect", "--plan", str(plan)],
            env=home.environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def recoverable(state: Path, since: float) -> bool:
    figures = published(state)
    until = figures.recoverable_until if figures and figures.state == "protected" else None
    return until is not None and time_of_text(until).timestamp() > since


def destroy(lost: Lost) -> None:
    """Take everything that the disaster takes."""
    lost.site.runtime.remove(volumes=True)
    shutil.rmtree(lost.site.root)
    identifiers = [docker("image", "inspect", "--format={{.Id}}", name).strip() for name in lost.images.values()]
    docker("rmi", *lost.images.values())
    for name in (*lost.images.values(), *identifiers):
        assert subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode != 0
    for kind in (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"]):
        assert not docker(*kind, "--filter", f"label=com.docker.compose.project={lost.name}").strip()


@needs_docker
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into Docker's volumes")
def test_a_whole_project_is_lost_and_back_from_the_vault_and_the_key(project: Lost, tmp_path: Path) -> None:
    lost, site, home = project, project.site, project.home
    home.folder = site.root
    home.kumodr("lab", "load", str(site.directory), "--count", "40", "--rate", "0", "--deferred", "0.5")
    lost.redis("SET", "throttle", "7")
    wait_for("a scrape", lambda: scraped(lost.prometheus))
    loop = protect(lost, tmp_path)
    try:
        state = site.root / "kumodr-state"
        begun = time.time()
        wait_for("protection", lambda: recoverable(state, begun), 60)
        home.kumodr("lab", "load", str(site.directory), "--count", "40", "--rate", "0", "--deferred", "0.5")
        wait_for("what the world takes", lost.settled, 30)
        environments = lost.environments()
        configuration = {name: (site.root / name).read_bytes() for name in CONFIGURATION}
        identifiers = {name: docker("image", "inspect", "--format={{.Id}}", name) for name in lost.images.values()}
        site.kill(["kumod"])
        disaster = time.time()
        wait_for("the last second in the vault", lambda: recoverable(state, disaster), 30)
    finally:
        loop.kill()
        loop.wait()
    unfinished = lost.unfinished()
    assert len(unfinished) > 10
    destroy(lost)

    (tmp_path / "elsewhere").mkdir()
    home.folder = tmp_path / "elsewhere"
    (block,) = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    places = {
        "/mnt/vault": str(tmp_path / "vault"), "/media/stick": str(tmp_path / "stick"),
        "/srv/recovered": str(tmp_path / "recovered"), "/opt/mail": str(site.root),
    }  # fmt: skip
    *before, start = block.strip().splitlines()
    for line in before:
        follow(home, line, places)
    assert site.runtime.services() and not any(site.running(name) for name in site.names())
    assert {name: docker("image", "inspect", "--format={{.Id}}", name) for name in lost.images.values()} == identifiers
    assert lost.ids(("--spool", str(site.spool))) == unfinished
    folder = site.spool.stat()
    assert (folder.st_uid, folder.st_mode & 0o7777) == (1000, 0o2770)
    assert {path.stat().st_uid for path in site.spool.rglob("*")} == {1000}
    assert {name: (site.root / name).read_bytes() for name in CONFIGURATION} == configuration

    follow(home, start, places)
    site.start()
    assert lost.environments() == environments
    assert lost.redis("GET", "throttle") == "7"
    query = {"query": "min_over_time(timestamp(up)[1h:1s])"}
    answer = httpx.get(f"{lost.prometheus}/api/v1/query", params=query, timeout=10).json()["data"]["result"]
    assert min(float(each["value"][1]) for each in answer) < disaster
    site.sink_rules(mode="accept")
    wait_for("all mail", lambda: not lost.waiting(), 60)
    site.stop(["kumod"])
    sums = account(sent(site.world), taken(site.world))
    assert (sums.acknowledged, sums.delivered, sums.duplicates, sums.unrecorded) == (80, 80, (), ())


def follow(home: Machine, line: str, places: dict[str, str]) -> None:
    """Run a command of the document with the places of this test in place of its own."""
    for place, here in places.items():
        line = line.replace(place, here)
    done = subprocess.run(
        ["sh", "-c", line], cwd=home.folder, env=home.environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 3), line + done.stdout + done.stderr
