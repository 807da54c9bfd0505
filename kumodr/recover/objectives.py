"""The plan's recovery point objectives against what the vault really holds."""

from collections.abc import Mapping, Sequence
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
}


@dataclass(frozen=True)
class Protection:
    """One component now: its newest stored state, that state's age and the objective, both in seconds."""

    component: str
    point: Point | None
    age: float | None
    objective: float
    verified: Mapping[str, object] | None

    @property
    def problem(self) -> str | None:
        """Return why the objective is not met, or None."""
        if self.age is None:
            return "never stored"
        if self.age > self.objective:
            return "older than the objective"
        if self.age < 0:
            return "taken in the future: a clock is wrong"
        return None


def protections(
    points: Sequence[Point],
    components: Sequence[str],
    objectives: Objectives,
    now: datetime,
    verification: Mapping[str, Mapping[str, object] | None],
    streamed_until: datetime | None = None,
) -> tuple[Protection, ...]:
    """Given the points and the newest verification by point id, return each component's protection at `now`.

    What a stream carries (`STREAMED`) is as new as the stream is, where that is newer than the point.
    """
    found: list[Protection] = []
    for component in components:
        holding = [point for point in points if point.section(component)]
        newest = max(holding, key=lambda point: point.taken, default=None)
        until = newest.taken if newest else None
        if until is not None and streamed_until is not None and component in STREAMED:
            until = max(until, streamed_until)
        found.append(
            Protection(
                component=component,
                point=newest,
                age=(now - until).total_seconds() if until else None,
                objective=getattr(objectives, OBJECTIVE_OF_COMPONENT[component]),
                verified=verification.get(newest.id) if newest else None,
            )
        )
    return tuple(found)
