"""How much mail waits, and where: from KumoMTA's metrics (facts §5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 10


@dataclass(frozen=True)
class Queues:
    """Messages that wait: all that are scheduled, those that are being sent now, and where the most are."""

    scheduled: int
    ready: int
    by_queue: tuple[tuple[str, int], ...]
    by_domain: tuple[tuple[str, int], ...]
    by_tenant: tuple[tuple[str, int], ...]

    @property
    def depth(self) -> int:
        """Every message that is not yet on its way out or gone."""
        return self.scheduled + self.ready


def queues_of(metrics: Mapping[str, Any]) -> Queues:
    """Given `/metrics.json`, return how the queues stand. A metric that KumoMTA left out was never touched: it is 0."""
    ready = by_label(metrics, "ready_count")
    return Queues(
        scheduled=int(number(metrics, "scheduled_count_total")),
        # `service` has rollups (a bare word) and, in them, one value for each path: only the rollups are counted.
        ready=int(sum(value for label, value in ready.items() if ":" not in label)) or int(sum(ready.values())),
        by_queue=_most(metrics, "scheduled_count"),
        by_domain=_most(metrics, "scheduled_by_domain"),
        by_tenant=_most(metrics, "scheduled_by_tenant"),
    )


def number(metrics: Mapping[str, Any], name: str) -> float:
    """Given a metric without labels, return its value, 0 where it is missing or something else."""
    value = metrics.get(name, {}).get("value")
    return float(value) if isinstance(value, int | float) else 0.0


def by_label(metrics: Mapping[str, Any], name: str) -> dict[str, float]:
    """Given a metric with one label, return its values by the label's; empty where it is missing."""
    value = metrics.get(name, {}).get("value")
    if not isinstance(value, dict):
        return {}
    found: dict[str, float] = {}
    for values in value.values():
        if isinstance(values, dict):
            found |= {str(label): float(each) for label, each in values.items() if isinstance(each, int | float)}
    return found


def _most(metrics: Mapping[str, Any], name: str) -> tuple[tuple[str, int], ...]:
    values = sorted(by_label(metrics, name).items(), key=lambda each: (-each[1], each[0]))
    return tuple((label, int(value)) for label, value in values[:_SHOWN] if value)
