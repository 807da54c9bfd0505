"""How protection stands now: what the loop last said, what the vault shows, and what is wrong, worst first.

The vault is asked, and the loop's own word counts only while it runs, for a site at rest: nothing was accepted since
the newest segment, so that segment is as new as the last round. So the same is seen without a loop, with one that died,
and from another machine that has nothing but the vault's address.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from kumodr.clock import time_of_text
from kumodr.components.registry import NAMES, configured
from kumodr.plan.model import Objectives, Plan
from kumodr.protect.figures import Figures, Rebase, published, why_not_running, why_unread
from kumodr.recover.choose import Streams
from kumodr.recover.objectives import CARRIED, Protection, newest_holding, protections
from kumodr.recover.ranges import Range, ranges
from kumodr.vault.facts import Point
from kumodr.vault.open import Vault
from kumodr.vault.points import survey
from kumodr.vault.proofs import LEVELS, Result, found_bad, newest_proofs, newest_results
from kumodr.vault.verified import latest_verifications

_SKEW = timedelta(minutes=1)
"""A time farther in the future comes from a clock that was wrong, and says nothing of what can be recovered."""

_STALE = {"deep": timedelta(days=8), "restore": timedelta(days=35)}
"""The users' plan verifies every week and restores every month."""


@dataclass(frozen=True)
class Look:
    """What was seen at one moment. `figures` are None where no loop is known here; `unread` says why that may be so."""

    components: tuple[str, ...]
    objectives: Objectives
    points: tuple[Point, ...] = ()
    continuous: tuple[Range, ...] = ()
    damage: tuple[str, ...] = ()
    """What is wrong in the vault."""
    results: tuple[Result, ...] = ()
    verification: Mapping[str, Mapping[str, object] | None] | None = None
    figures: Figures | None = None
    unread: str | None = None


@dataclass(frozen=True)
class Standing:
    """The moment `now`. `recoverable_until` is None where nothing can be recovered; `running` where the loop does.

    The figures of a loop that does not run are history: what is at risk now, nobody knows then.
    """

    now: datetime
    figures: Figures | None
    running: bool
    recoverable_until: datetime | None
    objective: float
    base: Point | None
    recent_rebases: tuple[Rebase, ...]
    proofs: Mapping[str, Result]
    components: tuple[Protection, ...]
    problems: tuple[str, ...]
    """What is wrong and what to do, worst first; none: every objective is met."""
    unproved: tuple[str, ...]
    """What was not verified for long, with what to do: a duty, not a failure."""

    @property
    def age(self) -> float | None:
        """The age of the newest state that the vault can give back, in seconds."""
        return None if self.recoverable_until is None else (self.now - self.recoverable_until).total_seconds()

    @property
    def upload_ratio(self) -> float | None:
        """Bytes that the vault took for each byte that the mail server accepted, since the loop was started."""
        figures = self.figures
        return figures.uploaded_bytes / figures.accepted_bytes if figures and figures.accepted_bytes else None


def look(vault: Vault, plan: Plan | None, now: datetime, *, local: bool) -> Look:
    """Given a vault, the plan if there is one, and whether the plan's loop ships to this vault, return what is seen.

    Raise the store's errors.
    """
    found = survey(vault, {})
    continuous, wrong = ranges(found.points, Streams(vault, {}, short=True))
    stored = {section.component for point in found.points for section in point.sections}
    components = configured(plan) if plan else tuple(name for name in NAMES if name in stored)
    newest = [point for name in components if (point := newest_holding(found.points, name)) is not None]
    state = Path(plan.state) if plan is not None and local else None
    return Look(
        components=components,
        objectives=plan.objectives if plan else Objectives(),
        points=found.points,
        continuous=continuous,
        damage=tuple(str(each) for each in (*found.problems, *wrong)),
        results=newest_results(vault, now),
        verification=latest_verifications(vault, _once(newest)),
        figures=published(state, vault.id) if state else None,
        unread=why_unread(state) if state else None,
    )


def _once(points: Sequence[Point]) -> tuple[Point, ...]:
    """Given points, return each once, by its id."""
    return tuple({point.id: point for point in points}.values())


def standing(seen: Look, now: datetime) -> Standing:
    """Given what was seen, return how it stands."""
    figures = seen.figures
    running = figures is not None and why_not_running(figures, now) is None
    times = [point.taken for point in seen.points if point.section("spool")]
    times += [each.until for each in seen.continuous]
    if running and figures is not None and figures.recoverable_until is not None:
        times.append(time_of_text(figures.recoverable_until))
    until = max((min(each, now) for each in times if each - now < _SKEW), default=None)
    bad = {
        point.id: f"found bad by `verify --{result.level}` at {_text(result.time)}"
        for point in seen.points
        if (result := found_bad(seen.results, point)) is not None
    }
    verification = seen.verification or {}
    states = protections(seen.points, seen.components, seen.objectives, now, verification, until, bad)
    recent = () if figures is None else tuple(
        each for each in figures.rebases if now - time_of_text(each.time) < timedelta(days=1)
    )  # fmt: skip
    proofs = newest_proofs(seen.results)
    return Standing(
        now=now,
        figures=figures,
        running=running,
        recoverable_until=until,
        objective=seen.objectives.queue,
        base=newest_holding(seen.points, "spool"),
        recent_rebases=recent,
        proofs=proofs,
        components=states,
        problems=(*_of_the_loop(seen, until, now), *_of_components(seen, states, running=running), *seen.damage),
        unproved=tuple(_unproved(proofs, now)) if seen.points else (),
    )


def _of_the_loop(seen: Look, until: datetime | None, now: datetime) -> Iterator[str]:
    """Yield what is wrong with the loop and the queue."""
    figures = seen.figures
    since = "nothing can be recovered" if until is None else f"what came in after {_text(until)} is in no copy"
    ended = why_not_running(figures, now) if figures is not None else None
    if seen.unread is not None:
        yield f"how `kumodr protect` stands cannot be read ({seen.unread}); look as the user that it runs as"
    elif figures is not None and ended is not None:
        yield f"{ended}, last round at {_text(time_of_text(figures.time))}: {since}; start it again"
    elif figures is not None and figures.state == "lost":
        why = figures.trouble or (figures.rebases[-1].reason if figures.rebases else "a new base is due")
        yield f"protection is lost ({why}): {since}; it begins again by itself when the cause is gone"
    elif figures is not None and figures.trouble:
        yield f"{figures.state}: {figures.trouble}"
    late = until is not None and (now - until).total_seconds() > seen.objectives.queue
    if late and "spool" in seen.components and not ended:
        todo = "run `kumodr protect`" if figures is None else "wait for the base" if _awaits_a_base(figures) else ""
        todo = todo or "see the loop's log"
        yield f"the newest recoverable message is older than the objective allows: {since}; {todo}"


def _of_components(seen: Look, states: Sequence[Protection], *, running: bool) -> Iterator[str]:
    """Yield which other objectives are missed, why, and what to do."""
    if states and not seen.points and not running:
        yield "nothing is stored yet; run `kumodr protect` as a service, or `kumodr backup` once"
        return
    for each in states:
        if each.problem is None or (each.component == "spool" and each.problem == "older than the objective"):
            continue
        tried = [
            point
            for point in seen.points
            if each.component in point.failures and (each.point is None or point.taken > each.point.taken)
        ]
        why = f" (last try: {tried[-1].failures[each.component]})" if tried else ""
        base_comes = running and each.component in CARRIED and seen.figures and _awaits_a_base(seen.figures)
        todo = "its first base is being taken" if base_comes else f"run `kumodr backup {each.component}`"
        yield f"{each.component}: {each.problem}{why}; {todo}"


def _awaits_a_base(figures: Figures) -> bool:
    return figures.state in ("starting", "waiting for a base")


def _unproved(proofs: Mapping[str, Result], now: datetime) -> Iterator[str]:
    """Yield each level of proof that is too old; a restore is a deep look too."""
    for level, longest in _STALE.items():
        times = [proofs[each].time for each in LEVELS[LEVELS.index(level) :] if each in proofs]
        if not times or now - max(times) > longest:
            when = f"{(now - max(times)).days} days ago" if times else "never"
            yield f"last proved good by {level}: {when}; run `kumodr verify --{level} --identity FILE`"


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
