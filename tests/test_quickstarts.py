"""The commands of the quickstarts, taken from the documents and run as they stand there, protect a site."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from compose_site import needs_docker
from install_site import Machine, machine
from servers import wait_for

from kumodr.components.places import read_places

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"


def commands(document: str) -> list[str]:
    """Return the three commands of a quickstart."""
    for block in re.findall(r"```sh\n(.*?)```", (DOCUMENTS / document).read_text(), re.DOTALL):
        lines = block.strip().splitlines()
        if lines[0].startswith("kumodr init "):
            assert len(lines) == 3, "the quickstart promises three commands"
            return lines
    raise AssertionError(f"{document} has no commands")


def follow(site: Machine, document: str, places: dict[str, str], directory: Path) -> None:
    """Run the commands with the places of this test in place of those of the document."""
    for line in commands(document):
        for place, here in places.items():
            line = line.replace(place, here)
        done = subprocess.run(
            ["sh", "-c", line], cwd=directory, env=site.environment, capture_output=True, text=True, timeout=300
        )
        # 3: there is a list of risks, as the vault of a test on the same disk.
        assert done.returncode in ((0, 3) if "init --read" in line else (0,)), line + done.stdout + done.stderr


def test_the_quickstart_for_systemd(tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    capture = unpacked("rocksdb-clean-stop")
    with machine(tmp_path / "machine") as site:
        policy = tmp_path / "init.lua"
        spools = "".join(
            f"  kumo.define_spool {{ name = '{name}', path = '{capture}/spool/{name}', kind = 'RocksDB' }}\n"
            for name in ("meta", "data")
        )
        logs = f"  kumo.configure_local_logs {{ log_dir = '{capture}/logs', max_segment_duration = '10s' }}\n"
        policy.write_text(f"local kumo = require 'kumo'\nkumo.on('init', function()\n{spools}{logs}end)\n")
        unit = site.units / "kumomta.service"
        unit.write_text(f"[Service]\nExecStart=/bin/sh -c 'exec sleep 600' kumod --policy {policy} --user kumod\n")
        site.run(["systemctl", "daemon-reload"])
        site.run(["systemctl", "start", "kumomta.service"])
        places = {
            "/mnt/vault": str(tmp_path / "vault"), "/media/stick": str(tmp_path / "stick"),
            "install units": f"install units --to {shlex.quote(str(site.units))}",
        }  # fmt: skip
        (tmp_path / "stick").mkdir()
        follow(site, "quickstart-systemd.md", places, site.folder)
        plan = yaml.safe_load((site.folder / "kumodr.yaml").read_text())
        assert plan["components"]["spool"]["meta"] == f"{capture}/spool/meta"
        assert plan["components"]["logs"]["directories"] == [f"{capture}/logs"]
        site.state = site.folder / "kumodr-state"
        site.wait_until_protected()
        identity = ("--identity", str(tmp_path / "stick" / "kumodr-identity.txt"))
        assert "is good (restore)" in site.kumodr("verify", "--restore", *identity)
        assert site.unit("kumomta.service")["pid"]


@needs_docker
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into Docker's volumes")
def test_the_quickstart_for_compose(tmp_path: Path) -> None:
    with machine(tmp_path / "machine") as site:
        lab = tmp_path / "boxes"
        site.kumodr("lab", "up", str(lab), "--runtime", "compose", "--bare")
        project = lab / "site"
        try:
            image = re.findall(r"^SINK_IMAGE=(.*)$", (project / ".env").read_text(), re.MULTILINE)[0]
            before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
            places = {
                "/mnt/vault": str(tmp_path / "vault"), "/media/stick": str(tmp_path / "stick"),
                "install sidecar": f"install sidecar --image {image}",
            }  # fmt: skip
            (tmp_path / "stick").mkdir()
            follow(site, "quickstart-compose.md", places, project)
            assert {path: path.read_bytes() for path in before} == before
            site.kumodr("lab", "load", str(lab), "--count", "40", "--rate", "0", "--deferred", "1")
            plan = ("--plan", str(project / "kumodr.yaml"))

            def stored() -> bool:
                return site.run([sys.executable, "-m", "kumodr", "status", *plan]).returncode == 0

            try:
                wait_for("every component in the vault", stored, 60)
            except AssertionError:
                raise AssertionError(site.run([sys.executable, "-m", "kumodr", "status", *plan]).stdout) from None
            identity = ("--identity", str(tmp_path / "stick" / "kumodr-identity.txt"))
            back = tmp_path / "back"
            site.kumodr("restore", "--to", str(back), *identity, *plan, "--at", "latest")
            listed = json.loads(site.kumodr("spool", "list", "--spool", str(back / "spool"), json=True))
            assert len(listed["messages"]) == 40
            restored = back / "config" / "files" / str(project).lstrip("/")
            assert {each.name for each in restored.iterdir()} >= {
                "docker-compose.yml", ".env", "policy", "kumodr.yaml", "docker-compose.override.yml", "kumodr-sidecar",
            }  # fmt: skip
            # The sidecar has no Docker, and what it stores leads back into the compose project all the same.
            assert read_places(back / "config").runtime.directory == str(project)
            site.kumodr("install", "remove", "--apply", *plan)
            assert not (project / "kumodr-sidecar").exists()
        finally:
            site.kumodr("lab", "down", str(lab), "--remove")
