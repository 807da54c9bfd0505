"""One record of the delivery log, as facts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Record:
    """What one line says. Types that are not known are kept as they are; a `Rejection` has an empty id."""

    type: str
    id: str
    sender: str
    recipients: tuple[str, ...]
    queue: str
    event_time: datetime | None
    created_time: datetime | None
    size: int
    code: int
    content: str
    delivery_protocol: str
    reception_protocol: str
    node: str
    meta: Mapping[str, Any]


def parse(line: bytes) -> Record | None:
    """Given a line of a segment, return its record, or None where it is no record (a template's line, a header)."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        return None
    recipient = document.get("recipient")
    recipients = recipient if isinstance(recipient, list) else [recipient]
    response, meta = document.get("response"), document.get("meta")
    response = response if isinstance(response, dict) else {}
    return Record(
        type=document["type"],
        id=_text(document, "id"),
        sender=_text(document, "sender"),
        recipients=tuple(each for each in recipients if isinstance(each, str)),
        queue=_text(document, "queue"),
        event_time=_time(document.get("event_time"), document.get("timestamp")),
        created_time=_time(document.get("created_time"), document.get("created")),
        size=_number(document, "size"),
        code=_number(response, "code"),
        content=_text(response, "content"),
        delivery_protocol=_text(document, "delivery_protocol"),
        reception_protocol=_text(document, "reception_protocol"),
        node=_text(document, "nodeid"),
        meta=meta if isinstance(meta, dict) else {},
    )


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _number(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key)
    return value if isinstance(value, int) else 0


def _time(text: object, seconds: object) -> datetime | None:
    """Return the exact time (logged since 2025.10.06), else the one in whole seconds, else None."""
    try:
        if isinstance(text, str):
            return datetime.fromisoformat(text).astimezone(UTC)
        return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int | float) else None
    except (ValueError, OverflowError, OSError):
        return None
