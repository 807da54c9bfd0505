"""Which stored sections, and which part of the stream, make up the state that is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kumodr import errors
from kumodr.vault.facts import Point, Section
from kumodr.vault.open import Vault
from kumodr.vault.shortlist import short_listing
from kumodr.vault.stream import Extent, Listing, Trust, extent, listing, trust_of

STREAMED = ("spool", "logs")
"""The components that a stream goes on with."""


@dataclass(frozen=True)
class Chosen:
    """One component's section and the point it comes from."""

    point: Point
    section: Section


@dataclass(frozen=True)
class StreamChoice:
    """The segments that go on top of a base: `extent` of the epoch that `listing` names."""

    base: Point
    listing: Listing
    extent: Extent
    trust: Trust


@dataclass(frozen=True)
class State:
    """What is to be restored: sections, the stream on top of spool and logs, and what is wrong with the stream."""

    chosen: tuple[Chosen, ...]
    stream: StreamChoice | None = None
    problems: tuple[errors.KumodrError, ...] = ()


class Streams:
    """The streams of a vault, each epoch listed once, when it is asked for.

    `short` ones say how far an epoch leads, in few requests; others have every segment that a state may end with.
    """

    def __init__(self, vault: Vault, pins: Mapping[str, frozenset[str]], *, short: bool = False) -> None:
        self._vault = vault
        self._short = short
        self.trust = trust_of(vault, pins)
        self._listings: dict[tuple[str, int], Listing] = {}
        self._shorts: dict[tuple[str, int], tuple[int, Listing]] = {}

    def listing(self, node: str, epoch: int) -> Listing:
        """Given a node and an epoch, return its names."""
        if (node, epoch) not in self._listings:
            self._listings[node, epoch] = listing(self._vault, node, epoch)
        return self._listings[node, epoch]

    def _short_listing(self, base: Point) -> Listing:
        join = base.stream
        assert join is not None  # noqa: S101 — `on` asks for a base with a stream
        listed = self._shorts.get((base.node, join.epoch))
        if listed is None or listed[0] > join.begin:
            listed = join.begin, short_listing(self._vault, base.node, join.epoch, join.begin)
            self._shorts[base.node, join.epoch] = listed
        return listed[1]

    def on(self, base: Point, at: datetime | None = None) -> tuple[StreamChoice | None, tuple[errors.KumodrError, ...]]:
        """Given a base, return the stream that goes on from it, not after `at`, and what is wrong with it.

        None where none does, or where it does not reach the first state that is whole: then only the base counts.
        """
        join = base.stream
        if join is None or base.section("spool") is None:
            return None, ()
        found = self._short_listing(base) if self._short else self.listing(base.node, join.epoch)
        reach, problems = extent(self._vault, found, join.begin, self.trust, at)
        if reach is None or reach.last < join.whole:
            return None, problems
        return StreamChoice(base, found, reach, self.trust), problems


def choose_state(
    vault: Vault,
    points: Sequence[Point],
    pins: Mapping[str, frozenset[str]],
    *,
    wanted: str | None = None,
    at: datetime | None = None,
    components: Iterable[str] = (),
    streamed: bool = True,
) -> State:
    """Given the good points, return the newest state that is not after `at`: per component the newest section, and for
    spool and logs the base that reaches furthest with its stream.

    `wanted`, a point's id, means exactly that point's state; without `streamed` no stream is used. Raise PointMissing.
    """
    asked = tuple(components)
    exact = wanted is not None and wanted != "latest"
    if exact or not streamed or (asked and not set(asked) & set(STREAMED)):
        return State(choose(points, wanted=wanted, at=at, components=asked))
    streams = Streams(vault, pins)
    usable = [point for point in points if at is None or point.taken <= at]
    best: StreamChoice | None = None
    problems: list[errors.KumodrError] = []
    for node in {point.node for point in usable}:
        found, wrong = furthest([point for point in usable if point.node == node], streams, at)
        problems += wrong
        if found is not None and (best is None or found.extent.taken > best.extent.taken):
            best = found
    newest = max(usable, key=lambda point: (point.taken, point.sequence), default=None)
    if best is None or newest is None or (newest.node != best.base.node and newest.taken > best.extent.taken):
        return State(choose(points, at=at, components=asked), None, tuple(problems))
    mine = [point for point in points if point.node == best.base.node]
    chosen = {each.section.component: each for each in choose(mine, at=at, components=asked)}
    for name in STREAMED:
        section = best.base.section(name)
        if name in chosen and section is not None:
            chosen[name] = Chosen(best.base, section)
    return State(tuple(chosen.values()), best, tuple(problems))


def furthest(
    points: Sequence[Point], streams: Streams, at: datetime | None
) -> tuple[StreamChoice | None, tuple[errors.KumodrError, ...]]:
    """Given usable points of one node, return the base whose stream leads to the newest state, None where a base alone
    does: the newest one that its stream cannot be added to is newer than what an older base leads to.
    """
    bases = [point for point in points if point.section("spool") is not None]
    alone: Point | None = None
    problems: list[errors.KumodrError] = []
    for base in sorted(bases, key=lambda point: -point.sequence):
        found, wrong = streams.on(base, at)
        problems += [each for each in wrong if str(each) not in {str(other) for other in problems}]
        if found is not None:
            newer = alone is None or found.extent.taken >= alone.taken
            return (found if newer else None), tuple(problems)
        alone = alone or base
    return None, tuple(problems)


def choose(
    points: Sequence[Point],
    *,
    wanted: str | None = None,
    at: datetime | None = None,
    components: Iterable[str] = (),
) -> tuple[Chosen, ...]:
    """Given the good points, return per component the newest section of the point wanted, or of a time not after `at`.

    "Newest" goes by the number in the chain, not by the clock, which may have gone back. A component that the
    newest point lacks (it could not be captured then) comes from the newest earlier point that has it. With
    `wanted` (an id, or "latest") later points are left out. Raise PointMissing where there is nothing.
    """
    usable = [point for point in points if at is None or point.taken <= at]
    if wanted and wanted != "latest":
        last = next((point for point in points if point.id == wanted), None)
        if last is None:
            raise errors.PointMissing(f"there is no recovery point {wanted}")
        usable = [point for point in usable if point.node == last.node and point.sequence <= last.sequence]
    if not usable:
        raise errors.PointMissing(
            "the vault holds no recovery point" + (f" of {at:%Y-%m-%d %H:%M:%S} UTC or before" if at else "")
        )
    newest = max(usable, key=lambda point: (point.taken, point.sequence))
    same_node = sorted((point for point in usable if point.node == newest.node), key=lambda point: point.sequence)
    found: dict[str, Chosen] = {}
    for point in same_node:
        found.update({section.component: Chosen(point, section) for section in point.sections})
    asked = tuple(components)
    for name in asked:
        if name not in found:
            raise errors.PointMissing(f"no recovery point holds the component {name}")
    return tuple(chosen for name, chosen in found.items() if not asked or name in asked)
