"""A compose project for tests, of an image made out of one Debian package: no image registry is asked."""

import io
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

IMAGE = "kumodr-test-base:busybox-1"

WEB = "echo begun $KUMO_WORD; trap 'exit 0' TERM; while :; do sleep 0.1; done"
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"

COMPOSE = f"""version: "3.9"
x-usual: &usual {{image: "{IMAGE}", networks: [inside]}}
services:
  web:
    <<: *usual
    command: ["/bin/busybox", "sh", "-c", {WEB.replace("$", "$$")!r}]
    environment: {{KUMO_WORD: "${{WORD}}"}}
    volumes: ["spool:/spool", "./policy:/policy:ro"]
  stubborn:
    <<: *usual
    command: ["/bin/busybox", "sh", "-c", "{STUBBORN}"]
  looping:
    <<: *usual
    restart: always
    command: ["/bin/busybox", "sh", "-c", "exit 3"]
  ending:
    <<: *usual
    command: ["/bin/busybox", "sh", "-c", "exit 4"]
  publishing:
    image: "{IMAGE}"
    ports: ["127.0.0.1:${{PORT}}:80"]
    command: ["/bin/busybox", "sleep", "60"]
  hidden:
    <<: *usual
    profiles: [extra]
    command: ["/bin/busybox", "sleep", "60"]
networks: {{inside: {{internal: true}}}}
volumes: {{spool: {{}}}}
"""


def docker_reason() -> str | None:
    """Return why Docker cannot be used here, or None."""
    try:
        answer = subprocess.run(["docker", "version"], capture_output=True, timeout=30, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Docker does not answer: {error}"
    return None if answer.returncode == 0 else f"Docker does not answer: {answer.stderr.strip()[-200:]}"


NO_DOCKER = docker_reason()
MAY_SKIP = "CI" not in os.environ or shutil.which("docker") is None
"""Where tests run unattended on a machine that has Docker, a Docker that does not answer is a failure."""

needs_docker = pytest.mark.skipif(NO_DOCKER is not None and MAY_SKIP, reason=str(NO_DOCKER))


@contextmanager
def compose_project(directory: Path, text: str, *variables: str) -> Generator[str]:
    """Given a folder, a compose file and lines for `.env`, write them, give the project's name, and clear all away."""
    name = f"kumodrtest{uuid.uuid4().hex[:8]}"
    (directory / "docker-compose.yml").write_text(text)
    (directory / ".env").write_text("\n".join([f"COMPOSE_PROJECT_NAME={name}", *variables]) + "\n")
    try:
        yield name
    finally:
        clear_project(name)


def clear_project(name: str) -> None:
    """Given a compose project's name, remove its containers, networks and volumes."""
    label = f"label=com.docker.compose.project={name}"
    for words, remove in (
        (["ps", "-aq"], ["rm", "-fv"]),
        (["network", "ls", "-q"], ["network", "rm"]),
        (["volume", "ls", "-q"], ["volume", "rm"]),
    ):
        found = subprocess.run(["docker", *words, "--filter", label], capture_output=True, text=True).stdout.split()
        if found:
            subprocess.run(["docker", *remove, *found], capture_output=True, check=True)


def make_image(directory: Path) -> None:
    """Given an empty directory, make the base image where there is none yet."""
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode == 0:
        return
    subprocess.run(
        ["apt-get", "download", "busybox-static"], cwd=directory, check=True, capture_output=True, timeout=120
    )
    package = next(directory.glob("busybox-static*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, directory / "tree"], check=True, capture_output=True, timeout=60)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(directory / "tree" / "bin" / "busybox", "bin/busybox")
        for link in ("sh", "cat", "sleep"):
            entry = tarfile.TarInfo(f"bin/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    subprocess.run(["docker", "import", "-", IMAGE], input=buffer.getvalue(), check=True, capture_output=True)


def make_image_of(directory: Path, name: str, programs: list[str]) -> str:
    """Given programs of this host, make an image of them and the libraries that they need, on top of the base."""
    tag = f"kumodr-test-{name}:2"
    if subprocess.run(["docker", "image", "inspect", tag], capture_output=True).returncode == 0:
        return tag
    make_image(directory)
    files = list(programs)
    for program in programs:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        files += [word for word in listed.split() if word.startswith("/")]
    context = directory / "context"
    context.mkdir()
    with tarfile.open(context / "files.tar", "w", dereference=True) as archive:
        for file in dict.fromkeys(files):
            archive.add(file, file)
        for link in ("ls", "rm", "wget"):
            entry = tarfile.TarInfo(f"bin/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nADD files.tar /\n")
    subprocess.run(["docker", "build", "-q", "-t", tag, context], check=True, capture_output=True)
    return tag
