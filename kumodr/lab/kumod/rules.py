"""Suspensions and bounces: rules in memory, gone with the process (facts §4)."""

import random
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|hr|d|day|days)?")
_UNITS = {
    None: 1.0,
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "hr": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
}
CRITERIA = ("campaign", "tenant", "domain", "routing_domain")


@dataclass
class Rule:
    """One rule and what it has done so far. `ends` is monotonic, in seconds."""

    id: str
    criteria: dict[str, str]
    queue_names: tuple[str, ...]
    reason: str
    ends: float
    suppress_logging: bool = False
    bounced: dict[str, int] = field(default_factory=dict[str, int])

    def matches(self, queue: str) -> bool:
        """Say whether the rule concerns a queue, by its name or by each criterion."""
        if self.queue_names:
            return queue in self.queue_names
        parts = parts_of(queue)
        return all(parts.get(key) == value for key, value in self.criteria.items())


class Rules:
    """The rules of one kind."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._rules: dict[str, Rule] = {}

    def add(self, body: dict[str, Any]) -> Rule:
        """Given the body of a request, add its rule. Raise KeyError or ValueError for what it lacks."""
        rule = Rule(
            id=str(uuid.UUID(int=self._chance.getrandbits(128), version=4)),
            criteria={key: str(body[key]) for key in CRITERIA if body.get(key) is not None},
            queue_names=tuple(body.get("queue_names") or ()),
            reason=str(body["reason"]),
            ends=time.monotonic() + seconds(body.get("duration") or "5m"),
            suppress_logging=bool(body.get("suppress_logging")),
        )
        self._rules[rule.id] = rule
        return rule

    def remove(self, rule_id: str) -> bool:
        """Take a rule away; say whether there was one."""
        return self._rules.pop(rule_id, None) is not None

    def active(self) -> list[Rule]:
        """Return the rules that have not ended."""
        now = time.monotonic()
        self._rules = {key: rule for key, rule in self._rules.items() if rule.ends > now}
        return list(self._rules.values())

    def matching(self, queue: str) -> Rule | None:
        """Return a rule that concerns the queue, or None."""
        return next((rule for rule in self.active() if rule.matches(queue)), None) if self._rules else None


def parts_of(queue: str) -> dict[str, str]:
    """Given `campaign:tenant@domain!routing_domain`, return the parts that are there."""
    found: dict[str, str] = {}
    rest, _, routing = queue.partition("!")
    if routing:
        found["routing_domain"] = routing
    head, at, domain = rest.rpartition("@")
    found["domain"] = domain
    if at:
        campaign, colon, tenant = head.rpartition(":")
        if colon:
            found["campaign"] = campaign
        if tenant:
            found["tenant"] = tenant
    return found


def seconds(text: str) -> float:
    """Given a duration like `10m`, return seconds. Raise ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"invalid duration: {text}")
    return float(match[1]) * _UNITS[match[2]]


def duration_text(value: float) -> str:
    """Given seconds, return them as kumod prints what is left: `9m 59s 999ms`."""
    parts: list[str] = []
    milliseconds = int(value * 1000)
    for unit, size in (("day", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"
