"""A miniature mail site in one directory, every process real except, by default, the mail server.

DIR/site      everything that a disaster takes: spool, logs, config, redis, prometheus, run
DIR/world     what stays: the sink with its index, the records of what was sent
DIR/kumodr.yaml, DIR/vault, DIR/state-…       protection
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import write_file
from kumodr.lab import services
from kumodr.lab.options import Options, read_options, write_options
from kumodr.lab.ports import free_ports
from kumodr.lab.processes import Process, is_running, kill, stop
from kumodr.plan.render import render

CANARY = "canary@example.com"
"""An address that the sink takes mail for."""

_READY_LIMIT = 60.0
_POLL = 0.02


@dataclass(frozen=True)
class Addresses:
    """Ports on loopback."""

    smtp: int
    http: int
    redis: int
    prometheus: int


class Site:
    """A lab site on disk, running or not. Made by `create`, `open_site` or `adopt`."""

    def __init__(self, directory: Path, options: Options, addresses: Addresses, processes: dict[str, Process]) -> None:
        self.directory = directory
        self.options = options
        self.addresses = addresses
        self._processes = processes

    @property
    def root(self) -> Path:
        """The directory that a disaster takes."""
        return self.directory / "site"

    @property
    def world(self) -> Path:
        """The directory that stays."""
        return self.directory / "world"

    @property
    def plan(self) -> Path:
        """The plan that protects all of it."""
        return self.directory / "kumodr.yaml"

    @property
    def smtp(self) -> str:
        """Where mail is handed in."""
        return f"127.0.0.1:{self.addresses.smtp}"

    @property
    def http(self) -> str:
        """The mail server's HTTP interface."""
        return f"http://127.0.0.1:{self.addresses.http}"

    @property
    def sink(self) -> str:
        """The world's mail server."""
        return f"127.0.0.1:{self.sink_port}"

    @property
    def spool(self) -> Path:
        """The spool's directory."""
        return self.root / "spool"

    @property
    def sink_port(self) -> int:
        """The port of the world's mail server."""
        return int(json.loads((self.world / "world.json").read_text())["port"])

    def names(self) -> tuple[str, ...]:
        """The services of this site, in the order in which they are started."""
        wanted = {"redis": self.options.redis, "prometheus": self.options.prometheus}
        return tuple(name for name in ("sink", "redis", "prometheus", "kumod") if wanted.get(name, True))

    def start(self, names: Sequence[str] | None = None) -> None:
        """Start the services that do not run, each until it is ready. Raise LabFailed; what it began is stopped."""
        begun: list[str] = []
        try:
            for name in names or self.names():
                if self.running(name):
                    continue
                process = services.launch(name, self)
                self._processes[name] = process
                begun.append(name)
                self.remember()
                self._wait(name, lambda name=name: services.ready(name, self))
        except BaseException:
            self.stop(begun)
            raise

    def stop(self, names: Sequence[str] | None = None) -> None:
        """Stop services as an operator would, the mail server first."""
        for name in reversed(names or self.names()):
            if name in self._processes:
                stop(self._processes[name])

    def kill(self, names: Sequence[str] | None = None) -> None:
        """End services with SIGKILL."""
        for name in reversed(names or self.names()):
            if name in self._processes:
                kill(self._processes[name])

    def running(self, name: str) -> bool:
        """Say whether a service runs."""
        return name in self._processes and is_running(self._processes[name])

    def pid(self, name: str) -> int | None:
        """The process id of a service that runs, or None."""
        return self._processes[name].pid if self.running(name) else None

    def sink_rules(self, **rules: Any) -> None:
        """Tell the sink what to do from now on; see `sink.py`."""
        write_file(self.world / "control.json", json.dumps(rules).encode())

    def wipe(self) -> None:
        """Kill everything but the world, and remove the site's directory."""
        self.kill([name for name in self.names() if name != "sink"])
        shutil.rmtree(self.root)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_LIMIT
        while not ready():
            if not self.running(name):
                raise errors.LabFailed(
                    f"{name} ended while it was started", remedy=f"read {services.log_of(name, self)}"
                )
            if time.monotonic() > deadline:
                raise errors.LabFailed(f"{name} is not ready after {_READY_LIMIT:.0f} s")
            time.sleep(_POLL)

    def remember(self) -> None:
        """Remember ports and processes; the sink's belong to the world."""
        own = {name: asdict(process) for name, process in self._processes.items() if name != "sink"}
        document = {"addresses": asdict(self.addresses), "processes": own}
        write_file(self.root / "site.json", json.dumps(document, indent=2).encode())
        if "sink" in self._processes:
            world = json.loads((self.world / "world.json").read_text())
            world["process"] = asdict(self._processes["sink"])
            write_file(self.world / "world.json", json.dumps(world).encode())


def create(directory: Path, options: Options, *, vault: str | None = None) -> Site:
    """Given a directory without a site, lay one out. Raise TargetNotEmpty where there is one, LabFailed."""
    if (directory / "site").exists():
        raise errors.TargetNotEmpty(
            f"there is a lab site at {directory}", remedy="use it, or `kumodr lab down --remove`"
        )
    site = _laid_out(directory, options)
    services.write_configuration(site)
    if not (directory / "kumodr.yaml").exists():
        write_plan(site, vault or str(directory / "vault"))
    return site


def open_site(directory: Path) -> Site:
    """Given a directory with a site of processes, return it. Raise LabMissing."""
    if (directory / "site" / "docker-compose.yml").exists():
        raise errors.LabMissing(
            f"the lab site at {directory} runs in containers, as an ordinary compose project",
            remedy=f"treat {directory / 'site'} as any compose project",
        )
    try:
        document = json.loads((directory / "site" / "site.json").read_text())
        options = read_options(directory / "site" / "config" / "lab.json")
        world = json.loads((directory / "world" / "world.json").read_text())
    except (OSError, ValueError) as error:
        raise errors.LabMissing(f"there is no lab site at {directory}") from error
    processes = {name: Process(**each) for name, each in document["processes"].items()}
    if "process" in world:
        processes["sink"] = Process(**world["process"])
    return Site(directory, options, Addresses(**document["addresses"]), processes)


def stop_world(directory: Path) -> None:
    """Given a lab directory whose site was wiped, stop the sink, which stayed. Raise LabMissing where there is none."""
    try:
        world = json.loads((directory / "world" / "world.json").read_text())
    except (OSError, ValueError) as error:
        raise errors.LabMissing(f"there is no lab site at {directory}") from error
    if "process" in world:
        stop(Process(**world["process"]))


def adopt(directory: Path, restored: Path, **changes: Any) -> Site:
    """Given a lab directory whose site is gone and what `kumodr restore` brought back, make a site of it.

    The restored folders are moved, not copied. `changes` are options that shall differ. Raise LabMissing,
    TargetNotEmpty.
    """
    if (directory / "site").exists():
        raise errors.TargetNotEmpty(f"there is a lab site at {directory}")
    found = [path for path in (restored / "config").rglob("lab.json") if path.parent.name == "config"]
    if not found:
        raise errors.LabMissing(f"{restored} holds no configuration of a lab site")
    site = _laid_out(directory, replace(read_options(found[0]), **changes))
    moves = [(restored / "spool", site.root / "spool"), (found[0].parent, site.root / "config")]
    moves += [(folder, site.root / "logs") for folder in (restored / "logs").glob("1-*")]
    moves += [(restored / "redis", site.root / "redis"), (restored / "prometheus", site.root / "prometheus" / "data")]
    for source, target in moves:
        if source.exists():
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, target)
    # A restored folder is closed to others; a KumoMTA that was started as root finds no database in such a one.
    (site.root / "spool").chmod(0o755)
    write_options(site.root / "config" / "lab.json", site.options)
    services.write_configuration(site)
    if not (directory / "kumodr.yaml").exists():
        write_plan(site, str(directory / "vault"))
    return site


def write_plan(site: Site, vault: str) -> None:
    """Given a site, write the kumodr.yaml that protects all of it."""
    write_file(site.directory / "kumodr.yaml", render(plan_values(site, vault)).encode(), mode=0o644)


def plan_values(site: Site, vault: str) -> dict[str, Any]:
    """Given a site and a vault's address, return the values of the plan that protects all of it."""
    root = site.root
    components: dict[str, Any] = {
        "spool": {"meta": str(root / "spool" / "meta"), "data": str(root / "spool" / "data")},
        "logs": {"directories": [str(root / "logs")]},
        "config": {"paths": [str(root / "config")]},
    }
    runtime: dict[str, Any] = {"kind": "process", "directory": str(site.directory), "kumod": "kumod"}
    if site.options.redis:
        runtime["redis"] = "redis"
        components["redis"] = {"url": f"redis://127.0.0.1:{site.addresses.redis}", "data": str(root / "redis")}
    if site.options.prometheus:
        address = f"http://127.0.0.1:{site.addresses.prometheus}"
        components["prometheus"] = {"data": str(root / "prometheus" / "data"), "url": address}
        runtime["prometheus"] = "prometheus"
    return {
        "version": 1,
        "site": "lab",
        "vault": {"url": vault},
        "state": str(root / "kumodr-state"),
        "components": components,
        "kumod": {"http": site.http, "smtp": site.smtp},
        "runtime": runtime,
        "runbooks": {"canary": CANARY},
    }


def _laid_out(directory: Path, options: Options) -> Site:
    for name in ("spool/meta", "spool/data", "logs", "config", "redis", "prometheus/data", "run"):
        (directory / "site" / name).mkdir(parents=True, exist_ok=True)
    for name in ("spool", "spool/meta", "spool/data"):
        (directory / "site" / name).chmod(0o755)
    (directory / "world").mkdir(exist_ok=True)
    smtp, http, redis, prometheus, sink = free_ports(5)
    processes: dict[str, Process] = {}
    try:
        world = json.loads((directory / "world" / "world.json").read_text())
        if "process" in world:
            processes["sink"] = Process(**world["process"])
    except (OSError, ValueError):
        write_file(directory / "world" / "world.json", json.dumps({"port": sink}).encode())
    site = Site(directory, options, Addresses(smtp, http, redis, prometheus), processes)
    if not (directory / "world" / "control.json").exists():
        site.sink_rules(mode="rules")
    write_options(site.root / "config" / "lab.json", options)
    site.remember()
    return site
