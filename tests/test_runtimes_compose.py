"""A compose project as people have them: files in other folders, restarts long ago, slow ends, full volumes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose_site import IMAGE, compose_project, make_image, needs_docker

from kumodr import errors
from kumodr.runtimes.commands import Answer
from kumodr.runtimes.compose import ComposeRuntime, Project
from kumodr.runtimes.docker_errors import named

PROJECT = f"""version: "3.9"
x-usual: &usual {{image: "{IMAGE}", networks: [inside]}}
services:
  web:
    <<: *usual
    command: ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    volumes: ["kept:/kept", "small:/small"]
  stumbling:
    <<: *usual
    restart: always
    volumes: ["kept:/kept"]
    command: ["/bin/busybox", "sh", "-c", "[ -e /kept/stumbled ] && exec sleep 60; touch /kept/stumbled; exit 3"]
  slow:
    <<: *usual
    stop_grace_period: 1s
    volumes: ["kept:/kept"]
    command: ["/bin/busybox", "sh", "-c", "trap 'sleep 2; touch /kept/ended; exit 0' TERM; while :; do sleep 0.1; done"]
  filling:
    <<: *usual
    volumes: ["small:/small"]
    command: ["/bin/busybox", "dd", "if=/dev/zero", "of=/small/file", "bs=64k", "count=4"]
  listening:
    <<: *usual
    command: ["/bin/busybox", "sh", "-c", "nc -l -p 80 & sleep 0.2; exec nc -l -p 80"]
networks: {{inside: {{internal: true}}}}
volumes: {{kept: {{}}, small: {{driver_opts: {{type: tmpfs, device: tmpfs, o: "size=128k"}}}}}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "image").mkdir()
    make_image(folder / "image")
    with compose_project(folder, PROJECT):
        yield Project(folder)


@needs_docker
def test_files_in_another_folder_are_the_project_that_the_compose_tool_makes_of_them(tmp_path: Path) -> None:
    make_image(tmp_path)
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    with compose_project(deploy, PROJECT) as name:
        tool = ["docker", "compose"] if _has_plugin() else ["docker-compose"]
        words = [*tool, "-f", "deploy/docker-compose.yml", "up", "-d", "web"]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
        runtime = ComposeRuntime(Project(tmp_path, (Path("deploy/docker-compose.yml"),)), say=print)
        assert runtime.state("web").running
        assert runtime.state("web") == ComposeRuntime(Project(deploy, name=name), say=print).state("web")


def _has_plugin() -> bool:
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


@needs_docker
def test_restarts_of_earlier_days_are_no_loop_and_fewer_instances_may_end_by_themselves(project: Project) -> None:
    said: list[str] = []
    runtime = ComposeRuntime(project, say=said.append)
    with pytest.raises(errors.ServiceRestarts):
        runtime.start("stumbling")
    assert runtime.state("stumbling").restarts == 1
    runtime.start("stumbling")
    runtime.scale("slow", 1)
    runtime.scale("slow", 0)
    assert said[-1].startswith("waiting up to 300 s for each slow")
    assert runtime.exec("stumbling", ["cat", "/kept/ended"]) == Answer(0, b"", b"")


@needs_docker
def test_a_full_volume_and_a_port_taken_inside_are_named(project: Project, tmp_path: Path) -> None:
    runtime = ComposeRuntime(project, say=print)
    with pytest.raises(errors.DiskFull, match="filling ends because no space is left where it writes; free space"):
        runtime.start("filling")
    with pytest.raises(errors.PortTaken, match="listening ends because a port that it listens on is taken"):
        runtime.start("listening")
    runtime.start("web")
    (tmp_path / "large").write_bytes(b"x" * 300_000)
    with pytest.raises(errors.DiskFull, match="no space is left where web writes"):
        runtime.copy_in("web", tmp_path / "large", "/small/large")


@needs_docker
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can be somebody else")
def test_who_may_not_use_docker_is_told_so_by_either_tool(project: Project) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    file = (project.directory / "docker-compose.yml").read_bytes()
    for words in (["docker", "ps"], ["docker-compose", "-f", "-", "up", "-d", "web"]):
        if shutil.which(words[0]) is not None:
            done = subprocess.run([*nobody, *words], cwd="/", input=file, capture_output=True)
            said = (done.stdout + done.stderr).decode()
            assert isinstance(named(said, "web"), errors.DockerForbidden), said
