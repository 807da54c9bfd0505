"""Lay a lab site of processes out again where a disaster took it, at the addresses that its plan names."""

import json
from pathlib import Path
from urllib.parse import urlsplit

from kumodr import errors
from kumodr.durable import write_file
from kumodr.lab import services
from kumodr.lab.options import read_options
from kumodr.lab.ports import free_ports
from kumodr.lab.processes import Process
from kumodr.lab.site import Addresses, Site
from kumodr.plan.model import Plan


def rebuild(directory: Path, plan: Plan, restored: Path) -> None:
    """Given a lab's directory, its plan and what `kumodr restore` brought back, make what is missing of the site.

    The configuration is in its place already. Nothing happens where the site is there. Raise LabMissing.
    """
    root = directory / "site"
    if (root / "site.json").exists():
        return
    world_file = directory / "world" / "world.json"
    if not world_file.exists():
        world_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(world_file, json.dumps({"port": free_ports(1)[0]}).encode())
    try:
        options = read_options(root / "config" / "lab.json")
        world = json.loads(world_file.read_text())
    except (OSError, ValueError) as error:
        raise errors.LabMissing(f"the lab at {directory} cannot be laid out again: {error}") from error
    for name in ("logs", "prometheus/data", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if (restored / "redis").is_dir() and not (root / "redis").exists():
        (restored / "redis").rename(root / "redis")
    (root / "redis").mkdir(exist_ok=True)
    parts = plan.components
    redis, prometheus = free_ports(2)
    addresses = Addresses(
        smtp=_port(plan.kumod.smtp and f"smtp://{plan.kumod.smtp}"),
        http=_port(plan.kumod.http),
        redis=_port(parts.redis.url) if parts.redis else redis,
        prometheus=_port(parts.prometheus.url) if parts.prometheus else prometheus,
    )
    processes = {"sink": Process(**world["process"])} if "process" in world else {}
    site = Site(directory, options, addresses, processes)
    (root / "spool").chmod(0o755)
    if not (directory / "world" / "control.json").exists():
        site.sink_rules(mode="rules")
    services.write_configuration(site)
    site.remember()


def _port(url: str | None) -> int:
    port = urlsplit(url).port if url else None
    if port is None:
        raise errors.LabMissing("the plan of the lab does not name all of its addresses")
    return port
