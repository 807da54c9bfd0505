"""`kumodr install sidecar`: a file beside the user's, what is live read-only, and each thing in its way named."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from compose_site import IMAGE, compose_project, make_image, needs_docker
from install_site import Machine, machine, script

COMPOSE = f"""version: "3.9"
services:
  kumod:
    image: "{IMAGE}"
    command: ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    volumes: ["spool:/var/spool/kumomta", "./logs:/var/log/kumomta", "./policy:/opt/kumomta/etc/policy:ro"]
    networks: [inside]
  cache:
    image: "{IMAGE}"
    networks: [inside, back]
networks: {{inside: {{internal: true}}, back: {{internal: true}}}}
volumes: {{spool: {{}}}}
"""
RUNS = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Given a shell script, make an image that runs it whatever command is given."""
    make_image(tmp_path_factory.mktemp("image"))
    made: list[str] = []

    def make(words: str) -> str:
        name = f"kumodr-test-sidecar:{len(made)}"
        made.append(name)
        text = f"FROM {IMAGE}\nENTRYPOINT {json.dumps(['/bin/busybox', 'sh', '-c', words])}\n"
        subprocess.run(["docker", "build", "-q", "-t", name, "-"], input=text.encode(), check=True, capture_output=True)
        return name

    yield make
    subprocess.run(["docker", "rmi", "-f", *made], capture_output=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path / "mail") as made, compose_project(made.folder, COMPOSE) as name:
        made.run(["docker", "volume", "create", f"--label=com.docker.compose.project={name}", f"{name}_spool"])
        for half in ("meta", "data"):
            words = ["--entrypoint=/bin/busybox", f"--volume={name}_spool:/spool", IMAGE, "mkdir", f"/spool/{half}"]
            made.run(["docker", "run", "--rm", "--network=none", *words])
        for each in ("logs", "policy"):
            (made.folder / each).mkdir()
        plan = {
            "version": 1, "site": "primary", "vault": {"url": "vault"}, "state": "state",
            "components": {
                "spool": {"meta": f"/var/lib/docker/volumes/{name}_spool/_data/meta",
                          "data": f"/var/lib/docker/volumes/{name}_spool/_data/data"},
                "logs": {"directories": ["logs"]}, "config": {"paths": ["policy", "docker-compose.yml"]},
                "redis": {"url": "redis://127.0.0.1:16379", "password_env": "CACHE_WORD"},
            },
            "kumod": {"http": "http://127.0.0.1:8000"},
            "runtime": {"kind": "compose", "directory": ".", "kumod": "kumod", "redis": "cache"},
        }  # fmt: skip
        (made.folder / "kumodr.yaml").write_text(json.dumps(plan))
        made.kumodr("vault", "init", "--identity-out", str(tmp_path / "identity.txt"))
        yield made


def container(site: Machine, service: str = "kumodr") -> str:
    words = ["docker-compose", "ps", "-q", service] if shutil.which("docker-compose") else ["docker", "compose", "ps"]
    return site.run(words).stdout.strip()


@needs_docker
def test_a_sidecar_reads_what_is_live_and_is_made_anew_only_for_a_new_plan(
    site: Machine, image: Callable[[str], str]
) -> None:
    before = (site.folder / "docker-compose.yml").read_bytes()
    words = ("install", "sidecar", "--image", image(RUNS))
    said = site.kumodr(*words)
    assert f"would write {site.folder}/docker-compose.override.yml" in said and "nothing was changed" in said
    assert not (site.folder / "docker-compose.override.yml").exists()
    site.kumodr(*words, "--apply")
    assert (site.folder / "docker-compose.yml").read_bytes() == before
    known = yaml.safe_load(site.run(["docker-compose", "config"]).stdout)["services"]["kumodr"]
    assert known["read_only"] and known["cap_drop"] == ["ALL"] and known["cap_add"] == ["DAC_OVERRIDE"]
    assert sorted(known["networks"]) == ["back", "inside"]
    running = container(site)
    mounts = json.loads(site.run(["docker", "inspect", "-f", "{{json .Mounts}}", running]).stdout)
    assert {each["Destination"] for each in mounts if each["RW"]} == {
        str(site.folder / "vault"),
        str(site.folder / "state"),
    }
    plan = yaml.safe_load((site.folder / "kumodr-sidecar" / "kumodr.yaml").read_text())
    assert str(plan["components"]["spool"]["meta"]).removesuffix("/meta") in {each["Destination"] for each in mounts}
    assert plan["components"]["redis"]["url"] == "redis://cache:16379" and "runtime" not in plan
    assert plan["kumod"]["http"] == "http://kumod:8000" and plan["protect"]["metrics"] == "0.0.0.0:9464"
    assert str(site.folder / "docker-compose.override.yml") in plan["components"]["config"]["paths"]
    refused = site.run(["docker", "exec", running, "/bin/busybox", "touch", f"{site.folder}/logs/mine"])
    assert "Read-only file system" in refused.stderr
    assert "wrote" not in site.kumodr(*words, "--apply")
    assert container(site) == running
    (site.folder / "kumodr.yaml").write_text(
        (site.folder / "kumodr.yaml").read_text()[:-1] + ', "protect": {"every": 2}}'
    )
    site.kumodr(*words, "--apply")
    assert container(site) != running
    site.kumodr("install", "remove", "--apply")
    assert container(site) == "" and not (site.folder / "kumodr-sidecar").exists()
    assert (site.folder / "vault" / "kumodr-vault.json").exists()
    assert "install it with" in site.kumodr("install", "remove", code=4)


@needs_docker
def test_an_override_of_the_users_stays_theirs(site: Machine, image: Callable[[str], str]) -> None:
    override = site.folder / "docker-compose.override.yml"
    override.write_text('version: "3.9"\nservices: {kumod: {environment: {KUMO_MINE: "$$1"}}}\n')
    said = site.kumodr("install", "sidecar", "--image", image(RUNS), "--apply")
    assert override.read_text().endswith('{KUMO_MINE: "$$1"}}}\n')
    files = [site.folder / each for each in ("docker-compose.yml", override.name, "docker-compose.kumodr.yml")]
    assert f"COMPOSE_FILE={':'.join(map(str, files))} in .env" in said
    with (site.folder / ".env").open("a") as env:
        env.write(f"COMPOSE_FILE={':'.join(map(str, files))}\n")
    assert container(site)
    known = yaml.safe_load(site.run(["docker-compose", "config"]).stdout)["services"]
    assert known["kumod"]["environment"] == {"KUMO_MINE": "$$1"} and "kumodr" in known
    site.kumodr("install", "remove", "--apply")
    assert override.exists() and not files[2].exists()


@needs_docker
def test_each_thing_in_the_way_is_one_sentence(site: Machine, image: Callable[[str], str]) -> None:
    def refused(code: int, sentence: str, *, name: str = IMAGE) -> None:
        said = site.kumodr("install", "sidecar", "--image", name, "--apply", code=code)
        last = said.strip().splitlines()[-1]
        assert last.startswith("kumodr: ") and sentence in last, said

    refused(4, "there is no image 'kumodr-test-absent' on this machine; build it", name="kumodr-test-absent")
    refused(1, "kumodr ends and is restarted in a loop; read its log", name=image("exit 3"))
    full = "echo 'cp: write error: No space left on device' >&2; exit 1"
    refused(1, "kumodr ends because no space is left where it writes; free space", name=image(full))
    plan = site.folder / "kumodr.yaml"
    good = plan.read_text()
    plan.write_text(good.replace('"kumod": "kumod"', '"kumod": "absent"'))
    refused(2, "has no service 'absent'; correct runtime in kumodr.yaml")
    plan.write_text(good.replace('"kind": "compose"', '"kind": "none"'))
    refused(2, "the plan's runtime is no compose project")
    plan.write_text(good)
    file = site.folder / "docker-compose.yml"
    file.write_text(COMPOSE.replace("networks: [inside, back]", "no_such_key: 1"))
    refused(2, "cannot be read: ")
    site.environment["DOCKER_HOST"] = f"unix://{site.folder}/absent.sock"
    file.write_text(COMPOSE)
    refused(1, "the Docker daemon does not answer; start it")
    del site.environment["DOCKER_HOST"]
    docker = site.folder / "programs" / "docker"
    script(docker, 'case "$1" in compose) exit 1;; esac; echo "permission denied while trying to connect to the Docker'
                   ' daemon socket at unix:///var/run/docker.sock" >&2; exit 1')  # fmt: skip
    refused(2, "Docker's socket may not be used by this user; run as root")
    docker.unlink()
    site.environment["PATH"] = f"{site.folder}/programs"
    refused(2, "docker cannot be run: No such file or directory; install Docker")


@needs_docker
def test_a_service_of_the_users_and_a_vault_around_the_spool_are_refused(site: Machine) -> None:
    file, plan = site.folder / "docker-compose.yml", site.folder / "kumodr.yaml"
    file.write_text(COMPOSE.replace("  cache:\n", f'  kumodr: {{image: "{IMAGE}"}}\n  cache:\n'))
    assert "has a service 'kumodr' already" in site.kumodr("install", "sidecar", code=5)
    file.write_text(COMPOSE)
    (site.folder / "vault" / "logs").mkdir()
    plan.write_text(plan.read_text().replace('"directories": ["logs"]', '"directories": ["vault/logs"]'))
    said = site.kumodr("install", "sidecar", code=5)
    assert f"{site.folder}/vault/logs lies in a folder that the sidecar writes to; keep vault and state apart" in said
    shutil.rmtree(site.folder / "vault")
    assert "kumodr vault init" in site.kumodr("install", "sidecar", code=4)
    assert not (site.folder / "kumodr-sidecar").exists()
    assert os.listdir(site.folder / "logs") == []
