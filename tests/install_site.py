"""A machine for `kumodr install`: a spool, a plan, a vault, and a systemctl that runs what unit files say."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_systemctl import fake_systemd
from servers import wait_for

TESTS = Path(__file__).resolve().parent


@dataclass
class Machine:
    """A folder that stands for a machine: `units` for /etc/systemd/system, `programs` before all else on the path."""

    folder: Path
    environment: dict[str, str]
    state: Path

    @property
    def units(self) -> Path:
        return self.folder / "units"

    def kumodr(self, *words: str, code: int = 0, json: bool = False) -> str:
        """Run kumodr; return what it printed, on standard output alone with `json`."""
        more = ["--json"] if json else []
        done = self.run([sys.executable, "-m", "kumodr", *words, *more])
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if json else done.stdout + done.stderr

    def run(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120)

    def unit(self, name: str) -> dict[str, Any]:
        """Return what the fake systemd knows of a unit."""
        return json.loads((self.units / f"{name}.json").read_text())

    def is_protected(self) -> bool:
        """Whether the loop says that everything is protected."""
        try:
            return json.loads((self.state / "protect-status.json").read_text())["state"] == "protected"
        except (OSError, ValueError):
            return False

    def wait_until_protected(self) -> None:
        log = self.units / "kumodr-agent.service.log"
        try:
            wait_for("protection", self.is_protected, 40)
        except AssertionError:
            raise AssertionError(log.read_text() if log.exists() else "the agent never ran") from None


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Given an empty folder, make a machine; what its systemd runs is ended afterwards."""
    (folder / "home").mkdir(parents=True)
    with fake_systemd(folder) as (_units, programs):
        script(programs / "kumodr", f'exec {shlex.quote(sys.executable)} -m kumodr "$@"')
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "home" / "cache"),
            "XDG_STATE_HOME": str(folder / "home" / "state"),
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
        }
        yield Machine(folder, environment, folder / "state")


def script(path: Path, text: str) -> None:
    """Given a path, make a shell script there."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
