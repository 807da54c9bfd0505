"""The components by name, each loaded only when it is used."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

from kumodr.clock import Clock
from kumodr.components.protocol import Component, Verdict
from kumodr.plan.model import (
    Components,
    ConfigPlan,
    ImagesPlan,
    LogsPlan,
    Plan,
    PrometheusPlan,
    RedisPlan,
    SpoolPlan,
    VaultPlan,
)

CLASSES = {
    "spool": "SpoolComponent",
    "logs": "LogsComponent",
    "ledger": "LedgerComponent",
    "config": "ConfigComponent",
    "redis": "RedisComponent",
    "prometheus": "PrometheusComponent",
    "images": "ImagesComponent",
}

NAMES = tuple(CLASSES)

_SECTION = {"ledger": "logs"}
"""The section of the plan that a component follows where it has none of its own name."""

_NOWHERE = Plan(
    version=1,
    site="",
    vault=VaultPlan(""),
    state="",
    components=Components(
        spool=SpoolPlan("", ""),
        logs=LogsPlan(()),
        config=ConfigPlan(),
        redis=RedisPlan(""),
        prometheus=PrometheusPlan(),
        images=ImagesPlan(),
    ),
)
"""A plan that names no place: examining a restored folder must work on an empty machine, with no plan at all."""


def configured(plan: Plan) -> tuple[str, ...]:
    """Given the plan, return the names of the components that it protects."""
    return tuple(name for name in NAMES if getattr(plan.components, _SECTION.get(name, name)) is not None)


def component(name: str, plan: Plan, clock: Clock) -> Component:
    """Given a component's name and the plan, return the component."""
    module = importlib.import_module(f"kumodr.components.{name}")
    return cast(Component, getattr(module, CLASSES[name])(plan, clock))


def vetter(name: str, clock: Clock) -> Callable[[Path], Verdict]:
    """Given a component's name, return what examines a restored folder of it; needs no plan."""
    return component(name, _NOWHERE, clock).vet
