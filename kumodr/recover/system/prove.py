"""What was recovered, how long it took and what it cost, against the plan's objectives, from the mail itself."""

from dataclasses import asdict, dataclass
from typing import Any

from kumodr.cli.terminal import age_text
from kumodr.clock import time_of_text
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Outcome


@dataclass(frozen=True)
class Measured:
    """One objective of the plan, in seconds, and what was measured; None where the mail does not tell."""

    objective: str
    allowed: float
    measured: float | None
    how: str

    @property
    def met(self) -> bool | None:
        """Whether it was met, None where it is not known."""
        return None if self.measured is None else self.measured <= self.allowed


def prove(scene: Scene, context: Context) -> Outcome:
    """Measure from the last sign of life in the mail's own records to the message that was taken and delivered."""
    rows = measured(scene, context)
    lines = [
        f"{each.objective}: {age_text(each.measured) if each.measured is not None else 'not known'} "
        f"(allowed {age_text(each.allowed)}), {each.how}"
        for each in rows
    ]
    missed = tuple(f"objective missed: {each.objective}" for each in rows if each.met is False)
    table: list[dict[str, Any]] = [asdict(each) | {"met": each.met} for each in rows]
    return Outcome("\n".join(lines), {"objectives": table}, missed)


def measured(scene: Scene, context: Context) -> tuple[Measured, ...]:
    """Given the facts of a run, return each objective with what was measured."""
    facts, plan = context.facts, scene.plan.objectives
    disaster, until = facts.get("disaster"), facts.get("until")

    def since(moment: str | None) -> float | None:
        if disaster is None or moment is None:
            return None
        return max(0.0, (time_of_text(moment) - time_of_text(disaster)).total_seconds())

    end = max((each for each in (facts.get("accepted"), facts.get("delivered")) if each), default=None)
    lost = None if disaster is None or until is None else (time_of_text(disaster) - time_of_text(until)).total_seconds()
    begins = "from the last that the mail server wrote" if not scene.wanted.disaster else "from the time that was given"
    return (
        Measured("critical_services", plan.critical_services, since(facts.get("accepted")),
                 f"{begins} until mail is accepted"),
        Measured("full_system", plan.full_system, since(end), f"{begins} until mail is delivered"),
        Measured("data", plan.data, since(facts.get("placed")), f"{begins} until the spool was in place"),
        Measured("queue", plan.queue, None if lost is None else max(0.0, lost),
                 "age of the recovered spool at that time"),
    )  # fmt: skip
