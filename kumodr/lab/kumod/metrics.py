"""Metrics with kumod's names, in both of its forms; a metric is left out until it was first touched."""

from collections.abc import Callable
from typing import Any

KNOWN = {
    "connection_count": ("gauge", "number of active connections", "service"),
    "disk_free_bytes": ("gauge", "number of available bytes in a monitored location", "name"),
    "disk_free_percent": ("gauge", "percentage of available bytes in a monitored location", "name"),
    "disk_free_inodes": ("gauge", "number of available inodes in a monitored location", "name"),
    "memory_usage": ("gauge", "number of bytes of used memory", None),
    "message_count": ("gauge", "total number of Message objects", None),
    "ready_count": ("gauge", "number of messages in the ready queue", "service"),
    "scheduled_by_domain": ("gauge", "number of messages in the scheduled queue for a specific domain", "domain"),
    "scheduled_by_tenant": ("gauge", "number of messages in the scheduled queue for a specific tenant", "tenant"),
    "scheduled_count": ("gauge", "number of messages in the scheduled queue", "queue"),
    "scheduled_count_total": ("gauge", "total number of messages across all scheduled queues", None),
    "scheduled_queue_count": ("gauge", "number of scheduled queues", None),
    "total_connection_count": ("counter", "total number of active connections ever made", "service"),
    "total_connections_denied": ("counter", "total number of connections rejected due to load shedding", "service"),
    "total_messages_delivered": ("counter", "total number of messages ever delivered", "service"),
    "total_messages_fail": ("counter", "total number of message delivery attempts that permanently failed", "service"),
    "total_messages_received": ("counter", "total number of messages ever received", "service"),
    "total_messages_transfail": (
        "counter",
        "total number of message delivery attempts that transiently failed",
        "service",
    ),
}
"""Name → type, help, label. A part of kumod's own list (kumod-metrics.json), with its names."""


class Metrics:
    """Values by metric and label. `collect` is asked for the gauges that follow from the state."""

    def __init__(self, collect: "Callable[[Metrics], None]") -> None:
        self._values: dict[str, dict[str | None, float]] = {}
        self._collect = collect

    def add(self, name: str, label: str | None = None, amount: float = 1) -> None:
        """Count."""
        values = self._values.setdefault(name, {})
        values[label] = values.get(label, 0) + amount

    def set(self, name: str, value: float, label: str | None = None) -> None:
        """Set a gauge."""
        self._values.setdefault(name, {})[label] = value

    def clear(self, name: str) -> None:
        """Forget the labels of a gauge, before they are set anew."""
        self._values.pop(name, None)

    def document(self) -> dict[str, Any]:
        """Return the form of /metrics.json."""
        self._collect(self)
        found: dict[str, Any] = {}
        for name, values in sorted(self._values.items()):
            kind, text, label = KNOWN[name]
            value = values[None] if label is None else {label: {key or "": each for key, each in values.items()}}
            found[name] = {"help": text, "type": kind, "value": value}
        return found

    def text(self, prefix: str = "") -> str:
        """Return the form of /metrics."""
        self._collect(self)
        lines: list[str] = []
        for name, values in sorted(self._values.items()):
            kind, text, label = KNOWN[name]
            lines += [f"# HELP {prefix}{name} {text}", f"# TYPE {prefix}{name} {kind}"]
            for key, value in values.items():
                labels = "" if label is None else f'{{{label}="{key}"}}'
                lines.append(
                    f"{prefix}{name}{labels} {value:g}" if value < 1e6 else f"{prefix}{name}{labels} {value:.0f}"
                )
        return "\n".join(lines) + "\n"
