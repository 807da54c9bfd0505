"""What happened between two looks at KumoMTA's metrics: counters as rates, histograms as the mean of what is new."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kumodr.mailserver.queues import by_label

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Rates:
    """Messages a second by what became of them, over so many seconds; and connections that were refused."""

    seconds: float
    received: float
    delivered: float
    deferred: float
    bounced: float
    refused: float


def rates_between(before: Metrics, after: Metrics, seconds: float) -> Rates:
    """Given two looks and the time between them, return the rates. A server that was restarted counts from zero."""

    def rate(name: str) -> float:
        return rollup_difference(before, after, name) / seconds

    return Rates(
        seconds,
        rate("total_messages_received"),
        rate("total_messages_delivered"),
        rate("total_messages_transfail"),
        rate("total_messages_fail"),
        rate("total_connections_denied"),
    )


def rollup_difference(before: Metrics, after: Metrics, name: str) -> float:
    """Given a counter's name, return how much it rose, its rollups only (facts §5: paths repeat what they sum up)."""
    old, new = by_label(before, name), by_label(after, name)
    risen = {label: value - old.get(label, 0.0) for label, value in new.items() if ":" not in label}
    return sum(new[label] if value < 0 else value for label, value in risen.items())


def mean_between(before: Metrics, after: Metrics, name: str) -> float | None:
    """Given a histogram's name, return the mean, in its unit, of what came in between; None where nothing did."""
    (old_count, old_sum), (count, total) = _histogram(before, name), _histogram(after, name)
    if count < old_count:
        old_count, old_sum = 0.0, 0.0
    return (total - old_sum) / (count - old_count) if count > old_count else None


def _histogram(metrics: Metrics, name: str) -> tuple[float, float]:
    value = metrics.get(name, {}).get("value")
    if not isinstance(value, dict):
        return 0.0, 0.0
    count, total = value.get("count"), value.get("sum")
    if not isinstance(count, int | float) or not isinstance(total, int | float):
        return 0.0, 0.0
    return float(count), float(total)
