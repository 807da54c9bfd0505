"""A compose project for tests, of an image made out of one Debian package: no image registry is asked."""

import io
import subprocess
import tarfile
from pathlib import Path

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
