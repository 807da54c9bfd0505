"""The places of a plan: what kumodr writes to, and all that it reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kumodr.plan.model import PATH, Plan
from kumodr.plan.shape import fields_of


def written(plan: Plan) -> list[Path]:
    """Given a plan, return the folders that are kumodr's own: the state, and a vault that is a folder."""
    return [Path(plan.state), *([] if "://" in plan.vault.url else [Path(plan.vault.url)])]


def snapshots(plan: Plan) -> Path | None:
    """Given a plan, return Prometheus's folder where it is asked for snapshots, None where it is not.

    Prometheus has no way to remove them again, so kumodr does, and needs the right to: they would fill its disk.
    """
    prometheus = plan.components.prometheus
    return Path(prometheus.data) if prometheus and prometheus.url and prometheus.data else None


def paths_of(shape: Any) -> Iterator[Path]:
    """Given one of the plan's dataclasses, yield every path of this host in it."""
    for field in fields_of(type(shape)):
        value = getattr(shape, field.name)
        if field.nested and value is not None:
            yield from paths_of(value)
        elif PATH in field.marks and value:
            yield from (Path(each) for each in (value if isinstance(value, tuple) else (value,)) if "://" not in each)
