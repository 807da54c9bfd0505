"""In the examining process: what the spool holds, written to two files that DuckDB reads.

`messages-N.ndjson` has each message with metadata that can be read; `findings-N.ndjson` what KumoMTA would not simply
load. N is the number of the process. Most messages are passed on as the bytes that are stored, not parsed here.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kumodr.spool.identifier import LENGTH
from kumodr.spool.metadata import Metadata, MetadataUnreadable, parse
from kumodr.spool.startup import Counts, what_would_happen

TEXTS = ("queue", "tenant", "campaign", "routing_domain", "reception_protocol")
"""What of a message's `meta` is passed on."""

_LONGEST_PLAIN = 1 << 16
_LONGEST_TEXT = 1 << 12
_LONGEST_RECIPIENT = 1 << 16
_RECIPIENTS_AT_ONCE = 100


def write_spooled(request: Mapping[str, Any], scratch: Path) -> dict[str, int]:
    """Given the request for a snapshot's messages, write both files to the directory `to`; return how many of what."""
    number = request.get("share") or 0
    to = Path(request["to"])
    counts = Counts()
    lines = found = 0
    with _private(to / f"messages-{number}.ndjson") as messages, _private(to / f"findings-{number}.ndjson") as findings:
        write = messages.write

        def note(key: bytes, raw: bytes | None, plain: bool) -> None:
            nonlocal lines
            if plain and raw is not None and len(raw) < _LONGEST_PLAIN:
                write(b'{"id":"%b",%b\n' % (key.hex().encode(), raw[1:]))
                lines += 1
            else:
                for line in _lines(key, raw):
                    write(line + b"\n")
                    lines += 1

        now, age = datetime.fromisoformat(request["now"]), timedelta(seconds=request["max_age"])
        for each in what_would_happen(request["halves"], scratch, now, age, counts, request.get("share"), note=note):
            findings.write(json.dumps({**asdict(each), "detail": each.detail[:1000]}).encode() + b"\n")
            found += 1
    return {"lines": lines, "findings": found, **asdict(counts)}


def _private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=1 << 20)


def _lines(key: bytes, raw: bytes | None) -> list[bytes]:
    """Return a message as lines of the same shape; many recipients are spread over several of them."""
    if raw is None or len(key) != LENGTH:
        return []
    try:
        metadata = parse(raw)
    except MetadataUnreadable:
        return []
    recipients = list(metadata.recipients)
    if any(len(each) > _LONGEST_RECIPIENT for each in recipients):
        recipients = []
    first = {
        "id": key.hex(),
        "sender": metadata.sender[:_LONGEST_TEXT],
        "recipient": recipients[:_RECIPIENTS_AT_ONCE],
        "meta": _texts(metadata),
        "first_attempt": _first_attempt(metadata),
        "count": len(metadata.recipients),
    }
    lines = [first]
    for start in range(_RECIPIENTS_AT_ONCE, len(recipients), _RECIPIENTS_AT_ONCE):
        more = recipients[start : start + _RECIPIENTS_AT_ONCE]
        lines.append({"id": key.hex(), "recipient": more, "start": start})
    return [json.dumps(each).encode() for each in lines]


def _texts(metadata: Metadata) -> dict[str, str]:
    values = ((key, metadata.meta.get(key)) for key in TEXTS)
    return {key: value[:_LONGEST_TEXT] for key, value in values if isinstance(value, str)}


def _first_attempt(metadata: Metadata) -> int | None:
    """Return when it may be sent at the earliest, in microseconds since 1970."""
    moment = metadata.schedule.first_attempt if metadata.schedule else None
    if moment is None:
        return None
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
