"""How protection stands now: what the loop last said, what the vault shows, and what is wrong with it, worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kumodr.clock import time_of_text
from kumodr.protect.figures import Figures, Rebase
from kumodr.recover.ranges import Range
from kumodr.vault.facts import Point

_SILENT = 10.0
"""Seconds without a round after which the loop counts as not running, or five rounds if that is more."""

_SKEW = timedelta(minutes=1)
"""A time farther in the future comes from a clock that was wrong, and says nothing of what can be recovered."""

_STALE = {"deep": timedelta(days=8), "restore": timedelta(days=35)}
"""The users' plan verifies every week and restores every month."""


@dataclass(frozen=True)
class Standing:
    """The moment `now`. `recoverable_until` is None where nothing can be recovered; `running` where the loop does."""

    now: datetime
    figures: Figures | None
    running: bool
    recoverable_until: datetime | None
    recent_rebases: tuple[Rebase, ...]
    proofs: Mapping[str, datetime]
    problems: tuple[str, ...]
    unproved: tuple[str, ...]
    """What was not verified for long, with what to do: a duty, not a failure."""

    @property
    def age(self) -> float | None:
        """The age of the newest state that the vault can give back, in seconds."""
        return None if self.recoverable_until is None else (self.now - self.recoverable_until).total_seconds()


def standing(
    points: Sequence[Point],
    continuous: Sequence[Range],
    figures: Figures | None,
    proofs: Mapping[str, datetime],
    allowed: float,
    every: float,
    now: datetime,
) -> Standing:
    """Given the vault's points and ranges, the loop's last figures (None: it never ran here, or this is another
    machine), when points were proved, the queue's objective and the loop's interval in seconds, return how it stands.

    The loop's word counts only while it runs, and only for a site at rest: nothing was accepted since the newest
    segment, so that segment is as new as the last round. Everything else is the vault's.
    """
    bases = [point.taken for point in points if point.section("spool")]
    times = [*bases, *(each.until for each in continuous)]
    running = figures is not None and why_not_running(figures, every, now) is None
    if running and figures is not None and figures.recoverable_until is not None:
        times.append(min(time_of_text(figures.recoverable_until), now))
    until = max((min(each, now) for each in times if each - now < _SKEW), default=None)
    recent = () if figures is None else tuple(
        each for each in figures.rebases if now - time_of_text(each.time) < timedelta(days=1)
    )  # fmt: skip
    problems = tuple(_problems(figures, until, allowed, every, now))
    unproved = tuple(_unproved(proofs, now)) if points else ()
    return Standing(now, figures, running, until, recent, proofs, problems, unproved)


def why_not_running(figures: Figures, every: float, now: datetime) -> str | None:
    """Given the loop's last figures and its interval, return why it counts as not running, or None."""
    if figures.state == "stopped":
        return f"`kumodr protect` was stopped at {figures.time}; nothing is protected since"
    if (now - time_of_text(figures.time)).total_seconds() > max(_SILENT, 5 * every):
        return f"`kumodr protect` does not run, or hangs: its last round was at {figures.time}"
    return None


def _problems(
    figures: Figures | None, until: datetime | None, allowed: float, every: float, now: datetime
) -> Sequence[str]:
    found: list[str] = []
    if figures is not None:
        ended = why_not_running(figures, every, now)
        if ended is not None:
            found.append(f"{ended}; start it again")
        elif figures.state == "lost":
            found.append(f"protection is lost: {figures.trouble or 'a new base is due'}; new mail is in no copy")
        elif figures.trouble:
            found.append(f"{figures.state}: {figures.trouble}")
    if until is not None and (now - until).total_seconds() > allowed:
        found.append("the newest recoverable message is older than the objective; run `kumodr protect`")
    return found


def _unproved(proofs: Mapping[str, datetime], now: datetime) -> Sequence[str]:
    found: list[str] = []
    for level, longest in _STALE.items():
        if level not in proofs or now - proofs[level] > longest:
            when = f"{(now - proofs[level]).days} days ago" if level in proofs else "never"
            found.append(f"last proved good by {level}: {when}; run `kumodr verify --{level} --identity FILE`")
    return found
