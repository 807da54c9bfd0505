"""The plan of a sidecar, made from the host's: the same paths, but addresses as a container of the project has them."""

import dataclasses
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kumodr.discover.compose_services import Composed, Service
from kumodr.plan.model import Plan

METRICS = 9464
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def plan_inside(plan: Plan, composed: Composed, more_config: tuple[Path, ...], *, host_network: bool) -> dict[str, Any]:
    """Given the host's plan and its compose project, return the values of the sidecar's plan.

    What needs Docker is left out, since a container that may use Docker is root on its host: the runtime, and with it
    the images. `more_config` are files that are configuration as well.
    """
    values = said(plan)
    components = values["components"]
    services = {each.name: each for each in composed.services}
    components.pop("images", None)
    if "redis" in components:
        components["redis"].pop("through", None)
        _translate(components["redis"], "url", services.get(plan.runtime.redis or ""))
    if "prometheus" in components and not components["prometheus"].get("data"):
        del components["prometheus"]  # its folder would be asked of Docker
    if "prometheus" in components:
        _translate(components["prometheus"], "url", services.get(plan.runtime.prometheus or ""))
    if "kumod" in values:
        _translate(values["kumod"], "http", services.get(plan.runtime.kumod or ""))
    config = components.setdefault("config", {})
    paths = [Path(each) for each in config.get("paths", ())]
    paths += [each for each in more_config if not any(each.is_relative_to(other) for other in paths)]
    config["paths"] = [str(each) for each in paths]
    values.pop("runtime", None)
    port = (plan.protect.metrics or "").rpartition(":")[2] or str(METRICS)
    where = "127.0.0.1" if host_network else "0.0.0.0"  # noqa: S104 — the project's own networks, nothing is published
    values.setdefault("protect", {})["metrics"] = f"{where}:{port}"
    return values


def said(shape: Any) -> dict[str, Any]:
    """Given one of the plan's dataclasses, return what it says beyond the defaults, as plain values."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(shape):
        value = getattr(shape, field.name)
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if value != default:
            nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
            values[field.name] = said(value) if nested else list(value) if isinstance(value, tuple) else value
    return values


def _translate(values: dict[str, Any], key: str, service: Service | None) -> None:
    """Write an address of this host as the service's own: its name, and the port inside that is published."""
    if service is None or service.host_network or not values.get(key):
        return
    parts = urlsplit(values[key])
    ports = {published: inside for inside, host, published in service.ports if host in (parts.hostname, "127.0.0.1")}
    if parts.hostname in _LOOPBACK or parts.port in ports:
        port = ports.get(parts.port or 0, parts.port)
        user = f"{parts.username}@" if parts.username else ""
        values[key] = parts._replace(netloc=f"{user}{service.name}{f':{port}' if port else ''}").geturl()
