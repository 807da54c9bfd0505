"""What there is to protect on this machine: a lab site, or the paths that are given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr import errors

USUAL = {
    "spool": "/var/spool/kumomta",
    "logs": "/var/log/kumomta",
    "config": "/opt/kumomta/etc",
}
"""Where KumoMTA's packages put things."""


@dataclass(frozen=True)
class Discovered:
    """The values of a plan, and what is not covered by it, each with what would cover it."""

    values: Mapping[str, Any]
    uncovered: tuple[str, ...]


def discover(
    *, site: str, vault: str, state: str, spool: str | None, logs: Sequence[str], config: Sequence[str],
    redis: str | None, prometheus: str | None, prometheus_url: str | None, http: str | None,
) -> Discovered:  # fmt: skip
    """Given what was said, and the usual places for what was not, return a plan. Raise SpoolMissing without a spool."""
    root = Path(spool or USUAL["spool"]).absolute()
    if not (root / "meta").is_dir() or not (root / "data").is_dir():
        raise errors.SpoolMissing(
            f"{root} holds no spool (no meta and data in it)",
            remedy="give --spool DIR, the directory with meta and data",
        )
    components: dict[str, Any] = {"spool": {"meta": str(root / "meta"), "data": str(root / "data")}}
    uncovered: list[str] = []
    found_logs = [str(Path(each).absolute()) for each in logs] or _if_there(USUAL["logs"])
    if found_logs:
        components["logs"] = {"directories": found_logs}
    else:
        uncovered.append("delivery logs: give --logs DIR, for every directory that the policy names")
    found_config = [str(Path(each).absolute()) for each in config] or _if_there(USUAL["config"])
    if found_config:
        components["config"] = {"paths": found_config}
    else:
        uncovered.append("configuration: give --config PATH, for policy, keys and everything else a new host needs")
    if redis:
        components["redis"] = {"url": redis}
    else:
        uncovered.append("redis: give --redis redis://HOST:PORT where throttles are kept in Redis")
    if prometheus:
        components["prometheus"] = {"data": str(Path(prometheus).absolute())}
        components["prometheus"] |= {"url": prometheus_url} if prometheus_url else {}
    else:
        uncovered.append("prometheus: give --prometheus DIR, its data folder, and --prometheus-url")
    if not http:
        uncovered.append("liveness: give --http http://127.0.0.1:8000, so that `kumodr check` can ask the mail server")
    values = {"version": 1, "site": site, "vault": {"url": vault}, "state": state, "components": components}
    return Discovered(values | ({"kumod": {"http": http}} if http else {}), tuple(uncovered))


def discover_lab(directory: Path, vault: str | None) -> Discovered:
    """Given a directory made by `kumodr lab up`, return the plan of its site. Raise LabMissing."""
    from kumodr.lab.site import open_site, plan_values

    return Discovered(plan_values(open_site(directory.absolute()), vault or str(directory.absolute() / "vault")), ())


def _if_there(path: str) -> list[str]:
    return [path] if Path(path).is_dir() else []
