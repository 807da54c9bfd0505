"""A lab site whose processes are containers of a compose project. What it can do, `lab/site.py` says.

DIR/site      the compose project: what a disaster takes, with the project's containers and volumes
DIR/world     what stays: the sink's index, the records of what was sent, the project's name
DIR/vault, DIR/keys      protection, and the key to it
"""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import write_file
from kumodr.lab.compose.project import SINK, read_environment
from kumodr.lab.options import Options, read_options
from kumodr.lab.ports import answers
from kumodr.runtimes.commands import Runner, run
from kumodr.runtimes.compose import ComposeRuntime, Project

_READY_LIMIT = 120.0
_POLL = 0.1
_PATIENCE = 20.0
_SERVED = ("sink", "redis", "kumo-prometheus", "kumod")


class ComposeSite:
    """A lab site in containers, running or not. Made by `open_compose`, and in `layout.py`."""

    def __init__(self, directory: Path, options: Options, project: str, runner: Runner = run) -> None:
        self.directory = directory
        self.options = options
        self._runner = runner
        self._environment = dict(os.environ)
        for name in ("COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "COMPOSE_PROFILES"):
            self._environment.pop(name, None)
        self.runtime = ComposeRuntime(
            Project(self.root, name=project), say=lambda _text: None, runner=runner, environment=self._environment
        )

    @property
    def root(self) -> Path:
        """The project's folder, which a disaster takes."""
        return self.directory / "site"

    @property
    def world(self) -> Path:
        """The directory that stays."""
        return self.directory / "world"

    @property
    def plan(self) -> Path:
        """The plan of the sidecar, in which paths and names are those of its container."""
        return self.root / "kumodr.yaml"

    @property
    def smtp(self) -> str:
        """Where mail is handed in."""
        return f"127.0.0.1:{self._port('KUMO_SMTP_PORT')}"

    @property
    def http(self) -> str:
        """The mail server's HTTP interface."""
        return f"http://127.0.0.1:{self._port('KUMO_HTTP_PORT')}"

    @property
    def sink(self) -> str:
        """The world's mail server, as the site's containers know it."""
        return SINK

    @property
    def spool(self) -> Path:
        """The spool's volume, as this host sees it. Raise LabFailed where this user may not look into it."""
        name = self.runtime.volume("spool")
        answer = self._runner(["docker", "volume", "inspect", "--format={{.Mountpoint}}", name], limit=60)
        folder = Path(answer.out.decode().strip() or "/nonexistent")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise errors.LabFailed(f"the volume {name} cannot be written from here", remedy="run this as root")
        return folder

    def names(self) -> tuple[str, ...]:
        """The services of this site, in the order in which they are started."""
        return (*_SERVED, "kumodr") if self.options.sidecar else _SERVED

    def start(self, names: Sequence[str] | None = None) -> None:
        """Start the services that do not run, and wait until all are ready. Raise LabFailed and Docker's errors."""
        wanted = names or self.names()
        first = [name for name in wanted if name != "kumodr"]
        self.runtime.up(first)
        for name in first:
            self._wait(name, lambda name=name: self._ready(name))
        if "kumodr" in wanted:
            # It begins with a base, so there has to be a spool.
            self.runtime.up(["kumodr"])
            self._wait("kumodr", lambda: self._ready("kumodr"))

    def stop(self, names: Sequence[str] | None = None) -> None:
        """Stop services as an operator would, kumodr last, so that it sees the mail server's last words."""
        wanted = names or self.names()
        for name in ("kumod", "kumodr", "kumo-prometheus", "redis", "sink"):
            if name in wanted:
                self.runtime.stop(name, patience=_PATIENCE)

    def kill(self, names: Sequence[str] | None = None) -> None:
        """End services with SIGKILL."""
        for name in names or self.names():
            self.runtime.kill(name)

    def running(self, name: str) -> bool:
        """Say whether a service runs."""
        return self.runtime.state(name).running

    def pid(self, name: str) -> int | None:
        """The process id of a service that runs, as this host counts, or None."""
        state = self.runtime.state(name)
        return state.pid if state.running else None

    def sink_rules(self, **rules: Any) -> None:
        """Tell the sink what to do from now on; see `sink.py`."""
        write_file(self.world / "control.json", json.dumps(rules).encode(), mode=0o644)

    def wipe(self) -> None:
        """Kill everything but the sink, and remove the project's volumes and its folder."""
        self.runtime.remove(keep=["sink"], volumes=True)
        shutil.rmtree(self.root)

    def down(self, *, remove: bool) -> None:
        """Stop everything; with `remove`, remove the volumes too."""
        if not remove:
            self.stop()
        self.runtime.remove(volumes=remove)

    def _port(self, name: str) -> int:
        return int(read_environment(self.root)[name])

    def _ready(self, name: str) -> bool:
        if name == "sink":
            return (self.world / "index.jsonl").exists() and self.running(name)
        if name == "redis":
            return _says(self._port("KUMO_REDIS_PORT"), b"PING\r\n", b"+PONG")
        if name == "kumo-prometheus":
            return answers(f"http://127.0.0.1:{self._port('KUMO_PROMETHEUS_PORT')}/-/ready")
        if name == "kumod":
            return answers(f"{self.http}/api/check-liveness/v1") and _says(self._port("KUMO_SMTP_PORT"), b"", b"220")
        return self.running(name) and not self.runtime.exec(name, ["kumodr", "status", "--json"]).code

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait until a service is ready. Published ports take connections before anybody listens behind them."""
        deadline = time.monotonic() + _READY_LIMIT
        while not ready():
            state = self.runtime.state(name)
            if not state.running or time.monotonic() > deadline:
                said = self.runtime.logs(name, lines=3).strip().replace("\n", " ")[-300:]
                what = f"is not ready after {_READY_LIMIT:.0f} s" if state.running else "ended while it was started"
                raise errors.LabFailed(
                    f"{name} {what}: {said}", remedy=f"read `docker-compose logs {name}` in {self.root}"
                )
            time.sleep(_POLL)


def open_compose(directory: Path) -> ComposeSite:
    """Given a directory with a site in containers, return it. Raise LabMissing."""
    try:
        options = read_options(directory / "site" / "lab.json")
        return ComposeSite(directory, options, read_environment(directory / "site")["COMPOSE_PROJECT_NAME"])
    except (OSError, ValueError, KeyError) as error:
        raise errors.LabMissing(f"there is no lab site in containers at {directory}") from error


def _says(port: int, ask: bytes, answer: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(ask)
            return connection.recv(64).startswith(answer)
    except OSError:
        return False
