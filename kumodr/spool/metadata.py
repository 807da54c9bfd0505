"""A message's metadata as KumoMTA stores it: JSON, read as strictly as KumoMTA reads it.

What does not parse here is deleted by KumoMTA when it starts, so every refusal has its reason. Unknown keys at the top
level are accepted, unknown keys in the schedule are not (both measured on a real server).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

DEEPEST = 127
"""KumoMTA's JSON reader refuses what is nested deeper."""

XFER_SUFFIX = ".xfer.kumomta.internal"
_RESTRICTION = frozenset(("dow", "tz", "start", "end"))
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_CLOCK_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?")


class MetadataUnreadable(ValueError):
    """The text is the reason why KumoMTA could not read the metadata."""


class QueueUnknown(ValueError):
    """The text is the reason why KumoMTA could not compute the name of the message's queue."""


@dataclass(frozen=True)
class Schedule:
    """When a message may be sent: not before `first_attempt`, not after `expires`, and a weekly window as text."""

    first_attempt: datetime | None = None
    expires: datetime | None = None
    window: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Metadata:
    """One message's envelope and what the policy noted about it. An empty sender is the null sender."""

    sender: str
    recipients: tuple[str, ...]
    meta: Mapping[str, Any]
    schedule: Schedule | None


class _Doubled(dict[str, Any]):
    """An object in which a key stands twice."""


def parse(raw: bytes) -> Metadata:
    """Given the stored bytes, return the metadata. Raise MetadataUnreadable with the reason."""
    document = _document(raw)
    if isinstance(document, _Doubled):
        raise MetadataUnreadable("a key stands twice at the top level")
    if not isinstance(document, dict):
        raise MetadataUnreadable("it is not an object")
    sender, meta = document.get("sender"), document.get("meta")
    if not isinstance(sender, str):
        raise MetadataUnreadable("sender is missing or not text")
    if not isinstance(meta, dict):
        raise MetadataUnreadable("meta is missing or not an object")
    recipient = document.get("recipient")
    recipients = [recipient] if isinstance(recipient, str) else recipient
    if not isinstance(recipients, list) or not all(isinstance(each, str) for each in recipients):
        raise MetadataUnreadable("recipient is missing, or neither text nor a list of texts")
    return Metadata(sender, tuple(recipients), meta, _schedule(document.get("schedule")))


def queue_name(metadata: Metadata) -> str:
    """Given metadata, return the name of the scheduled queue that KumoMTA puts the message in at start.

    `meta.queue`, else `campaign:tenant@domain!routing_domain` with the domain of the first recipient.
    Raise QueueUnknown with the reason; KumoMTA removes such a message.
    """
    if (queue := _text(metadata.meta, "queue")) is not None:
        return queue
    if not metadata.recipients:
        raise QueueUnknown("the list of recipients is empty")
    campaign, tenant = _text(metadata.meta, "campaign"), _text(metadata.meta, "tenant")
    routing = _text(metadata.meta, "routing_domain")
    name = domain_of(metadata.recipients[0])
    if campaign is not None:
        name = f"{campaign}:{tenant or ''}@{name}"
    elif tenant is not None:
        name = f"{tenant}@{name}"
    return name if routing is None else f"{name}!{routing}"


def domain_of(address: str) -> str:
    """Given an address, return its domain, empty where it has none."""
    return address.rpartition("@")[2] if "@" in address else ""


def _text(meta: Mapping[str, Any], key: str) -> str | None:
    value = meta.get(key)
    if value is not None and not isinstance(value, str):
        raise QueueUnknown(f"meta.{key} is not text")
    return value


def _document(raw: bytes) -> object:
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _depth(raw) > DEEPEST:
        raise MetadataUnreadable("it is nested too deeply")
    try:
        text = raw.decode("utf-8")
        document = _plainly(text)
        if document is None:
            document = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise MetadataUnreadable("it holds half of a surrogate pair") from None
    except UnicodeDecodeError:
        raise MetadataUnreadable("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise MetadataUnreadable(f"it is not JSON: {error}") from None
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(found)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _depth(raw: bytes) -> int:
    """Return how deeply brackets nest, those in strings not counted."""
    deepest = depth = 0
    for mark in re.findall(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', raw, re.DOTALL):
        if mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in b"]}":
            depth -= 1
    return deepest


def _schedule(value: object) -> Schedule | None:
    if value is None:
        return None
    if not isinstance(value, dict) or isinstance(value, _Doubled):
        raise MetadataUnreadable("schedule is not an object")
    unknown = set(value) - _RESTRICTION - {"first_attempt", "expires"}
    if unknown:
        raise MetadataUnreadable(f"schedule has the unknown key {min(unknown)[:40]!r}")
    return Schedule(_moment(value, "first_attempt"), _moment(value, "expires"), _window(value))


def _moment(schedule: dict[str, Any], key: str) -> datetime | None:
    value = schedule.get(key)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise MetadataUnreadable(f"schedule.{key} is no RFC 3339 time")
    return moment


def _window(schedule: dict[str, Any]) -> Mapping[str, str] | None:
    given = {key: schedule[key] for key in sorted(_RESTRICTION & set(schedule))}
    if not given:
        return None
    if len(given) < len(_RESTRICTION) or not all(isinstance(value, str) for value in given.values()):
        raise MetadataUnreadable("schedule must have dow, tz, start and end together, as texts")
    for day in given["dow"].lower().split(","):
        if day not in _DAYS and not any(day == each[:3] for each in _DAYS):
            raise MetadataUnreadable(f"schedule.dow has the unknown day {day[:20]!r}")
    for key in ("start", "end"):
        if not _CLOCK_TIME.fullmatch(given[key]):
            raise MetadataUnreadable(f"schedule.{key} is no time of day")
    return given


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def _plainly(text: str) -> dict[str, Any] | None:
    """Return the document where it is plain enough to be read without looking at each key, or None.

    Every key is followed by `":` where no space stands behind a quote; as many of these as the two objects have keys
    means that no key stands twice and that nothing is nested deeper. KumoMTA writes such text.
    """
    if text.count('" ') or text.count('"\n') or text.count('"\t') or text.count('"\r'):
        return None
    if "NaN" in text or "Infinity" in text:
        return None
    document = _PLAIN_DECODER.decode(text)
    meta = document.get("meta") if type(document) is dict else None
    plain = type(meta) is dict and text.count('":') == len(document) + len(meta)
    return document if plain else None


_PLAIN_DECODER = json.JSONDecoder()
