"""The plan's recovery point objectives against what the vault really holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kumodr.plan.model import Objectives
from kumodr.recover.choose import STREAMED
from kumodr.vault.facts import Point

OBJECTIVE_OF_COMPONENT = {
    "spool": "queue",
    "logs": "analytics",
    "ledger": "analytics",
    "config": "configuration",
    "redis": "analytics",
    "prometheus": "analytics",
    "images": "images",
}

CARRIED = (*STREAMED, "ledger")
"""What is as new as the stream is: the ledger holds what the delivery logs say, and those are in it."""


@dataclass(frozen=True)
class Protection:
    """One component now: its newest stored state, that state's age and the objective, both in seconds.

    `bad` says how the newest point that holds it was found bad, where it was.
    """

    component: str
    point: Point | None
    age: float | None
    objective: float
    verified: Mapping[str, object] | None
    bad: str | None = None

    @property
    def problem(self) -> str | None:
        """Return why the objective is not met, or None."""
        if self.age is None:
            return "never stored"
        if self.age > self.objective:
            return "older than the objective"
        if self.age < 0:
            return "taken in the future: a clock is wrong"
        return self.bad


def objectives_of(components: Iterable[str], objectives: Objectives) -> dict[str, float]:
    """Given components and the plan's objectives, return by component how old its newest copy may be, in seconds."""
    return {name: getattr(objectives, OBJECTIVE_OF_COMPONENT[name]) for name in components}


def newest_holding(points: Sequence[Point], component: str) -> Point | None:
    """Given the points, return the newest one that holds the component, None where none does."""
    holding = (point for point in points if point.section(component))
    return max(holding, key=lambda point: point.taken, default=None)


def protections(
    points: Sequence[Point],
    components: Sequence[str],
    objectives: Objectives,
    now: datetime,
    verification: Mapping[str, Mapping[str, object] | None],
    streamed_until: datetime | None = None,
    bad: Mapping[str, str] | None = None,
) -> tuple[Protection, ...]:
    """Given the points and the newest verification by point id, return each component's protection at `now`.

    What a stream carries is as new as the stream is, where that is newer than the point. `bad` are the points
    that were found bad, with how.
    """
    found: list[Protection] = []
    for component, objective in objectives_of(components, objectives).items():
        newest = newest_holding(points, component)
        until = newest.taken if newest else None
        if until is not None and streamed_until is not None and component in CARRIED:
            until = max(until, streamed_until)
        found.append(
            Protection(
                component=component,
                point=newest,
                age=(now - until).total_seconds() if until else None,
                objective=objective,
                verified=verification.get(newest.id) if newest else None,
                bad=(bad or {}).get(newest.id) if newest else None,
            )
        )
    return tuple(found)
