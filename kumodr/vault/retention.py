"""Which stored components stay, and why: points, policies, the time and what was verified in, decisions out.

Ages are counted from the newest point of the component, or from now where that lies in the future: where backups have
stopped nothing expires, and one wrong clock, the node's or the keeper's, expires nothing.

Whatever the policies say, these stay: the newest point of a node and of each of its components; the last one that was
verified, by a restore, else deep, else shallow; the newest base that a stream goes on from, and the one before the
oldest base that is kept for its age, whose stream leads to the times in between. Where a base has a stream, its
spool and logs stay together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kumodr.plan.model import KeepPlan, RetentionPlan
from kumodr.vault.facts import Point

STREAMED = ("spool", "logs")
LEVELS = ("restore", "deep", "shallow")

Verified = Mapping[str, Iterable[str]]
"""Point's id → the levels at which it was found good."""


@dataclass(frozen=True)
class Decision:
    """Whether one component of one point stays, and why: every reason to keep it, or the one that it goes for."""

    node: str
    sequence: int
    component: str
    keeps: bool
    reasons: tuple[str, ...]

    @property
    def point(self) -> str:
        """The point's id."""
        return f"{self.node}-{self.sequence}"


def decide(points: Sequence[Point], policies: RetentionPlan, now: datetime, verified: Verified) -> tuple[Decision, ...]:
    """Given the good points of a vault, return a decision for every component of each, in the order of the chains."""
    decisions: list[Decision] = []
    for node in sorted({point.node for point in points}):
        mine = sorted((point for point in points if point.node == node), key=lambda point: point.sequence)
        components = sorted({section.component for point in mine for section in point.sections})
        reasons: dict[tuple[int, str], list[str]] = {}
        for component in components:
            have = [point for point in mine if point.section(component) is not None]
            for point, reason in _kept(component, have, policies.of(component), now, verified):
                reasons.setdefault((point.sequence, component), []).append(reason)
        for point in mine:
            held = [name for name in STREAMED if (point.sequence, name) in reasons]
            if point.stream is not None and len(held) == 1:
                for name in STREAMED:
                    if name not in held and point.section(name) is not None:
                        reasons[point.sequence, name] = [f"it belongs to the {held[0]} of a base with a stream"]
        for point in mine:
            for component in (section.component for section in point.sections):
                why = reasons.get((point.sequence, component))
                gone = (_why_it_goes(policies.of(component)),)
                decisions.append(Decision(node, point.sequence, component, why is not None, tuple(why or gone)))
    return tuple(decisions)


def _kept(
    component: str, have: Sequence[Point], policy: KeepPlan, now: datetime, verified: Verified
) -> Iterable[tuple[Point, str]]:
    """Given the points of a node that have a component, in order, yield each that stays with one reason at a time."""
    newest = have[-1]
    yield newest, f"the newest with {component}"
    for level in LEVELS:
        proved = [point for point in have if level in verified.get(point.id, ())]
        if proved:
            yield proved[-1], f"the last one verified ({level})"
            break
    anchor = min(now, newest.taken)
    within = [point for point in have if policy.within and anchor - point.taken <= timedelta(seconds=policy.within)]
    for point in within:
        yield point, f"at most {_span(policy.within or 0)} older than the newest"
    for point in have[len(have) - policy.last :] if policy.last > 0 else ():
        yield point, f"one of the last {policy.last}"
    for name, count, bucket in _BUCKETS:
        for point in _newest_of_each(have, getattr(policy, name), bucket):
            yield point, f"the newest of its {count}"
    if component in STREAMED:
        bases = [point for point in have if point.stream is not None]
        if bases:
            yield bases[-1], "the newest base that a stream goes on from"
        before = [point for point in bases if within and point.sequence < within[0].sequence]
        if before:
            yield before[-1], f"its stream leads into the last {_span(policy.within or 0)}"


_BUCKETS: tuple[tuple[str, str, Callable[[datetime], object]], ...] = (
    ("daily", "day", lambda moment: moment.date()),
    ("weekly", "week", lambda moment: moment.isocalendar()[:2]),
    ("monthly", "month", lambda moment: (moment.year, moment.month)),
    ("yearly", "year", lambda moment: moment.year),
)


def _newest_of_each(have: Sequence[Point], count: int, bucket: Callable[[datetime], object]) -> Iterable[Point]:
    """Yield the newest point of each of the newest so many buckets that have one."""
    seen: set[object] = set()
    for point in reversed(have):
        if len(seen) >= count:
            return
        if bucket(point.taken) not in seen:
            seen.add(bucket(point.taken))
            yield point


def _why_it_goes(policy: KeepPlan) -> str:
    if policy.within:
        return f"more than {_span(policy.within)} older than the newest, and no rule keeps it"
    return "no rule keeps it"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"
