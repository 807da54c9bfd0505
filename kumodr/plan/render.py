"""A commented kumodr.yaml, written from the plan's shape so that it cannot say what the plan does not know."""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from typing import Any

from kumodr.plan.model import SECONDS, Plan
from kumodr.plan.shape import Field, fields_of

SAMPLE: Mapping[str, Any] = {
    "version": 1,
    "site": "primary",
    "vault": {"url": "/mnt/vault"},
    "state": "/var/lib/kumodr",
    "components": {
        "spool": {"meta": "/var/spool/kumomta/meta", "data": "/var/spool/kumomta/data"},
        "logs": {"directories": ["/var/log/kumomta"]},
        "config": {"paths": ["/opt/kumomta/etc"]},
        "redis": {"url": "redis://127.0.0.1:6379"},
        "prometheus": {"data": "/var/lib/prometheus/metrics2", "url": "http://127.0.0.1:9090"},
        "images": {"archives": True},
    },
    "kumod": {"http": "http://127.0.0.1:8000", "smtp": "127.0.0.1:25"},
    "runtime": {
        "kind": "systemd",
        "kumod": "kumomta.service",
        "redis": "redis-server.service",
        "prometheus": "prometheus.service",
    },
}


def render(values: Mapping[str, Any]) -> str:
    """Given plain values of a plan, return it as YAML with every key explained.

    A key that has no value here but a default stands there as a comment, and so does a component that is left out.
    """
    lines = ["# kumodr.yaml: the disaster recovery plan of one mail site. Paths are relative to this file."]
    _block(Plan, values, 0, lines, live=True)
    return "\n".join(lines) + "\n"


def _block(shape: type, values: Mapping[str, Any], depth: int, lines: list[str], *, live: bool) -> None:
    for field in fields_of(shape):
        present = live and field.name in values
        value = values.get(field.name, field.default)
        if field.nested:
            if depth == 0:
                lines.append("")
            lines.append(_line(depth, f"# {(field.nested.__doc__ or '').strip()}", live=True))
            nested = value if isinstance(value, Mapping) else {}
            whole = any(each.required for each in fields_of(field.nested)) and not nested
            example = SAMPLE["components"].get(field.name, {}) if whole else nested
            if is_dataclass(value) and not isinstance(value, type):
                example = asdict(value)
            shown = live and (present or field.name in values)
            lines.append(_line(depth, f"{field.name}:", live=shown and bool(nested)))
            _block(field.nested, example, depth + 1, lines, live=shown and bool(nested))
        else:
            lines.append(
                _line(
                    depth,
                    f"{field.name}: {_text(field, value)}".ljust(42 - 2 * depth) + f"  # {field.text}",
                    live=present,
                )
            )


def _line(depth: int, text: str, *, live: bool) -> str:
    return "  " * depth + ("" if live else "# ") + text.rstrip()


def _text(field: Field, value: Any) -> str:
    if value is None:
        return "null"
    if SECONDS in field.marks and isinstance(value, float):
        for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
            if value % size == 0:
                return f"{value / size:.0f}{unit}"
        return f"{Decimal(repr(value)):f}".removesuffix(".0") + "s"
    if isinstance(value, (list, tuple)):
        return json.dumps(list(value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
