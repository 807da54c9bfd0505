"""What a source of facts (compose, systemd) finds out about a mail site, before the policy is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr.components.protocol import Finding

POLICY = "/opt/kumomta/etc/policy/init.lua"
SPOOL = "/var/spool/kumomta"
LOGS = "/var/log/kumomta"
CONFIG = "/opt/kumomta/etc"
NODE_ID = "/opt/kumomta/etc/.nodeid"
"""Where KumoMTA and its packages put things (facts §6)."""
ANYWHERE = "0.0.0.0"  # noqa: S104 — read and compared, never listened at


@dataclass(frozen=True)
class Located:
    """A place as the mail server sees it, on this host: its path, or None and the risk that this is."""

    path: Path | None
    risk: Finding | None = None


@dataclass(frozen=True)
class Server:
    """Redis or Prometheus beside the mail server: how this host reaches it, and where its data lies.

    `secret` is true where it asks for a password, which no plan holds. `inside` is its address as it sees itself.
    """

    url: str | None
    data: Path | None
    secret: bool = False
    inside: str | None = None


@dataclass(frozen=True)
class Site:
    """A mail site. `runtime` is that section of the plan; `environment` the mail server's, None where not known.

    `locate` gives the place on this host of a path that the mail server sees, `reach` the address by which this host
    reaches what listens at an address of the mail server's, or None and what would change that. `configuration` is
    given the folders that hold live data, and gives what is stored as configuration, and what else there is.
    """

    source: str
    runtime: Mapping[str, Any]
    policy: str
    environment: Mapping[str, str] | None
    locate: Callable[[str], Located]
    reach: Callable[[str], tuple[str | None, str]]
    configuration: Callable[[Sequence[Path]], tuple[list[Path], list[str]]]
    redis: Server | None
    prometheus: Server | None
    uncovered: tuple[str, ...] = ()
    risks: tuple[Finding, ...] = ()


def reach_here(address: str) -> tuple[str | None, str]:
    """Given an address that a process of this host listens at, return the URL by which this host reaches it."""
    host, _, port = address.rpartition(":")
    return f"http://{'127.0.0.1' if host in ('', ANYWHERE, '*', '[::]') else host}:{port}", ""
