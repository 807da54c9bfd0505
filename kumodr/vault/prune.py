"""Clear a vault: first a plan, then what it says, in an order in which a crash anywhere leaves every kept point whole.

Three views of the same vault decide. What the policies keep is never put on a mark. What was marked long enough, and
every node agreed to (`vault/marks.py`), may go. And of that, what any point still needs that is there after this run
stays all the same: a point is only ever without its objects when its manifest, or its place in it, went before.

The order: the new mark, then the record of what leaves the chain, then manifests, the results of verifying them, the
first index object of a component that leaves a point that stays (from then on the point is without it), and at last
objects and segments. Whatever is left over by a crash is unneeded and marked, and goes with the next run.

The first segment of every epoch stays for ever: its name says that the number of the epoch was given.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kumodr import errors
from kumodr.clock import Clock
from kumodr.plan.model import RetentionPlan
from kumodr.vault import manifest
from kumodr.vault.cleared import Cleared, Run, record_cleared
from kumodr.vault.facts import Point, Section
from kumodr.vault.keys import NodeKey
from kumodr.vault.marks import marks_of, name_of, put_mark, read_marks
from kumodr.vault.nodes import KEEPER, known_keys, register
from kumodr.vault.open import Vault
from kumodr.vault.points import Survey, survey
from kumodr.vault.proofs import good_levels
from kumodr.vault.retention import Decision, decide
from kumodr.vault.store import Entry
from kumodr.vault.stream import Part, part_of_name

_AT_ONCE = 1000


@dataclass(frozen=True)
class Waiting:
    """Names on one mark that are not deleted yet, and why."""

    mark: int
    names: int
    size: int
    reason: str


@dataclass(frozen=True)
class PrunePlan:
    """What a run of prune does: names to put on a new mark, names to delete, and what both come from.

    `dropped` are components that leave points whose manifest stays, as (point, component). `problems` are why nothing
    may be pruned. Sizes are of sealed bytes.
    """

    decisions: tuple[Decision, ...]
    to_mark: tuple[str, ...]
    mark_size: int
    manifests: tuple[Point, ...]
    dropped: tuple[tuple[Point, str], ...]
    steps: tuple[tuple[str, ...], ...]
    delete_size: int
    waiting: tuple[Waiting, ...]
    used_up: tuple[str, ...]
    problems: tuple[errors.KumodrError, ...]
    found: Survey

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that is deleted, in order."""
        return tuple(name for step in self.steps for name in step)


def plan_prune(
    vault: Vault,
    policies: RetentionPlan,
    now: datetime,
    *,
    pins: Mapping[str, frozenset[str]] | None = None,
    retired: Collection[str] = (),
) -> PrunePlan:
    """Given a vault, policies and the time, return what to do. Reads names, sizes, manifests and marks, no content.

    The nodes in `retired` will never add a point again: what is marked does not wait for them.
    """
    numbers = marks_of(vault)
    found = survey(vault, pins or {})
    problems = [*found.problems, *map(_late, found.late)]
    decisions = decide(found.points, policies, now, good_levels(vault))
    going = {(each.node, each.sequence, each.component) for each in decisions if not each.keeps}
    known = {manifest.name_of(point.node, point.sequence) for point in found.points}
    entries = {
        entry.name: entry
        for prefix in ("points/", "objects/", "stream/", "verified/")
        for entry in vault.store.entries(prefix)
        if (prefix != "points/" or entry.name in known) and (prefix != "stream/" or part_of_name(entry.name))
    }
    grace = timedelta(seconds=policies.grace)
    kept = _view(found.points, lambda point, section: (point.node, point.sequence, section.component) not in going)
    kept_names = needed(kept, entries)
    leaving = needed(_view(found.points, lambda _point, _section: True), entries) - kept_names
    unneeded = [
        entry for name, entry in entries.items()
        if name not in kept_names and (name in leaving or now - entry.modified > grace)
    ]  # fmt: skip
    marks = read_marks(vault, numbers)
    modified = {entry.name: entry.modified for entry in vault.store.entries("marks/")}
    may_go: set[str] = set()
    waiting: list[Waiting] = []
    for number, names in marks.items():
        there = [entries[name] for name in names if name in entries and name not in kept_names]
        age = now - modified.get(name_of(number), now)
        behind = [] if age <= grace else behind_of(vault, found.whole, number, retired)
        if age > grace and not behind:
            may_go.update(entry.name for entry in there)
        elif there:
            reason = f"not given their point after it yet by {', '.join(behind)}" if behind else "in its grace period"
            waiting.append(Waiting(number, len(there), _size(there), reason))
    manifests, dropped, steps = _deleted(found.points, going, may_go, entries)
    marked = frozenset[str]().union(*marks.values())
    to_mark = [entry for entry in unneeded if entry.name not in marked]
    names = {name for step in steps for name in step}
    left = entries.keys() - names
    return PrunePlan(
        decisions=decisions,
        to_mark=tuple(sorted(entry.name for entry in to_mark)),
        mark_size=_size(to_mark),
        manifests=manifests,
        dropped=dropped,
        steps=steps,
        delete_size=_size(entries[name] for name in names),
        waiting=tuple(waiting),
        used_up=tuple(name_of(number) for number in sorted(marks)[:-1] if left.isdisjoint(marks[number])),
        problems=tuple(problems),
        found=found,
    )


def apply_prune(vault: Vault, plan: PrunePlan, key: NodeKey, clock: Clock) -> dict[str, str]:
    """Given a plan that was just made, do what it says; return by name why the store keeps what it does not delete.

    What a store's lock keeps stays unneeded and marked: it goes with a later run, when the lock ends. A manifest that
    stays keeps its objects, and a component that stays in its point too, whatever the order in which locks end: so what
    these need is left out of the steps that follow. `key` signs the record of what leaves the chain.
    Raise PruneUnsafe where the plan has problems, AnotherRun, StoreReadOnly.
    """
    if plan.problems:
        raise errors.PruneUnsafe(f"nothing is pruned from a vault that is not whole: {plan.problems[0].what}")
    register(vault, key)
    if plan.to_mark:
        put_mark(vault, plan.to_mark, clock)
    superseded: list[str] = []
    for node in sorted({point.node for point in (*plan.manifests, *(point for point, _ in plan.dropped))}):
        cleared = plan.found.cleared.get(node, Cleared())
        record_cleared(vault, node, _with(cleared, node, plan), plan.found.whole_of(node), key, clock)
        superseded += cleared.names
    refused: dict[str, str] = {}
    kept: set[str] = set()
    try:
        for step in (*plan.steps, (*plan.used_up, *superseded)):
            names = [name for name in step if name not in kept]
            for start in range(0, len(names), _AT_ONCE):
                try:
                    vault.store.delete(names[start : start + _AT_ONCE])
                except errors.ObjectsLocked as error:
                    refused |= error.refused
                    kept |= _kept_by(plan, error.refused.keys())
    except errors.StoreReadOnly as error:
        raise errors.StoreReadOnly(error.what, remedy="give the keeper the right to delete") from error
    return refused


def _kept_by(plan: PrunePlan, refused: Collection[str]) -> set[str]:
    """Given names that are not deleted, return what the points need that still have them: all that they ever named."""
    there = [
        point
        for point in plan.found.whole
        if manifest.name_of(point.node, point.sequence) in refused
        or any(stored.name in refused for section in point.sections for stored in section.index)
    ]
    return needed(there, plan.names)


def needed(points: Iterable[Point], names: Iterable[str]) -> set[str]:
    """Given points as far as they are kept, and the names in the vault, return the names that they need."""
    points = list(points)
    found = {manifest.name_of(point.node, point.sequence) for point in points}
    ids = {point.id for point in points}
    begins: dict[tuple[str, int], int] = {}
    newest: dict[str, int] = {}
    for point in points:
        found.update(stored.name for section in point.sections for stored in (*section.index, *section.objects))
        if point.stream is not None and point.section("spool") is not None:
            place = (point.node, point.stream.epoch)
            begins[place] = min(point.stream.begin, begins.get(place, point.stream.begin))
    parts = {name: part for name in names if (part := part_of_name(name)) is not None}
    for part in parts.values():
        newest[part.node] = max(part.epoch, newest.get(part.node, 0))
    found.update(name for name, part in parts.items() if _is_needed(part, begins, newest))
    found.update(name for name in names if name.startswith("verified/") and name.split("/")[1] in ids)
    return found


def _is_needed(part: Part, begins: Mapping[tuple[str, int], int], newest: Mapping[str, int]) -> bool:
    """Whether a segment is: a base leads to it, its epoch waits for its first base, or it holds the epoch's number.

    The one before a base's first is needed too: the loop looks at it when it goes on.
    """
    begin = begins.get((part.node, part.epoch))
    if part.first == part.last == 1:
        return True
    return part.epoch == newest[part.node] if begin is None else part.last >= begin - 1


def behind_of(vault: Vault, points: Sequence[Point], number: int, retired: Collection[str]) -> list[str]:
    """Given a mark's number, return the nodes that may still run a backup that does not honour it."""
    newest = {point.node: point for point in sorted(points, key=lambda point: point.sequence)}
    nodes = {*known_keys(vault), *newest} - {KEEPER, *retired}
    return sorted(node for node in nodes if node not in newest or newest[node].marks < number)


def _view(points: Sequence[Point], stays: Callable[[Point, Section], bool]) -> list[Point]:
    """Return the points with the sections that stay, and of a node's newest point at least the manifest."""
    newest = {point.node: point.sequence for point in sorted(points, key=lambda point: point.sequence)}
    found: list[Point] = []
    for point in points:
        sections = tuple(section for section in point.sections if stays(point, section))
        if sections or point.sequence == newest[point.node]:
            found.append(replace(point, sections=sections))
    return found


def _deleted(
    points: Sequence[Point],
    going: Collection[tuple[str, int, str]],
    may_go: Collection[str],
    entries: Mapping[str, Entry],
) -> tuple[tuple[Point, ...], tuple[tuple[Point, str], ...], tuple[tuple[str, ...], ...]]:
    """Return the points whose manifest is deleted now, the components that leave others, and all names step by step."""

    def leaves(point: Point, section: Section) -> bool:
        named = (point.node, point.sequence, section.component)
        whole = manifest.name_of(point.node, point.sequence) in may_go
        return named in going and (whole or (bool(section.index) and section.index[0].name in may_go))

    after = _view(points, lambda point, section: not leaves(point, section))
    stay = {point.id for point in after}
    manifests = tuple(point for point in points if point.id not in stay)
    waits = [point for point in manifests if manifest.name_of(point.node, point.sequence) not in may_go]
    after += [replace(point, sections=()) for point in waits]
    manifests = tuple(point for point in manifests if point not in waits)
    gone = {point.id for point in manifests}
    dropped = tuple(
        (point, section.component)
        for point in points if point.id not in gone
        for section in point.sections if leaves(point, section)
    )  # fmt: skip
    own = sorted(manifest.name_of(point.node, point.sequence) for point in manifests)
    others = {name for name in may_go if not name.startswith("points/")} - needed(after, entries)
    firsts = {section.index[0].name for point, name in dropped if (section := point.section(name)) and section.index}
    results = {name for name in others if name.startswith("verified/")}
    rest = others - results - firsts
    return manifests, dropped, (tuple(own), *(tuple(sorted(each)) for each in (results, firsts & others, rest)))


def _with(cleared: Cleared, node: str, plan: PrunePlan) -> Cleared:
    runs = [
        Run(point.sequence, point.sequence, point.previous, point.sha256)
        for point in plan.manifests if point.node == node
    ]  # fmt: skip
    sections = dict(cleared.sections)
    for point, component in plan.dropped:
        if point.node == node:
            sections[point.sequence] = sections.get(point.sequence, frozenset()) | {component}
    there = {point.sequence for point in plan.found.whole_of(node)}
    gone = {run.first for run in runs}
    sections = {number: names for number, names in sections.items() if number in there and number not in gone}
    return replace(cleared, runs=(*cleared.runs, *runs), sections=sections)


def _late(name: str) -> errors.KumodrError:
    return errors.StoreUnavailable(f"the store's listing is late: it does not have {name}")


def _size(entries: Iterable[Entry]) -> int:
    return sum(entry.size for entry in entries)
