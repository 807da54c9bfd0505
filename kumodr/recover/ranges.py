"""The times at which any second can be restored: what bases and the streams on them make together, without a key."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kumodr import errors
from kumodr.recover.choose import Streams
from kumodr.vault.facts import Point


@dataclass(frozen=True)
class Range:
    """One epoch of a node's stream and the bases in it, oldest first. `begun` is the first base's time.

    `segments` are the numbers from `first` to `last`, `rollups` the objects that repeat several of them.
    """

    node: str
    epoch: int
    bases: tuple[str, ...]
    begun: datetime
    until: datetime
    first: int
    last: int
    segments: int
    rollups: int


def ranges(points: Sequence[Point], streams: Streams) -> tuple[tuple[Range, ...], tuple[errors.KumodrError, ...]]:
    """Given the good points, return the ranges, oldest first, and what is wrong with the streams."""
    found: list[Range] = []
    problems: list[errors.KumodrError] = []
    epochs: dict[tuple[str, int], list[Point]] = {}
    for point in sorted(points, key=lambda point: (point.node, point.sequence)):
        if point.stream is not None and point.section("spool") is not None:
            epochs.setdefault((point.node, point.stream.epoch), []).append(point)
    for (node, epoch), bases in epochs.items():
        for number, base in enumerate(bases):
            stream, wrong = streams.on(base)
            problems += [each for each in wrong if str(each) not in map(str, problems)]
            if stream is None:
                continue
            reach, names = stream.extent, stream.listing
            found.append(
                Range(
                    node=node,
                    epoch=epoch,
                    bases=tuple(each.id for each in bases[number:]),
                    begun=base.taken,
                    until=reach.taken,
                    first=reach.first,
                    last=reach.last,
                    segments=reach.last - reach.first + 1,
                    rollups=sum(reach.first <= last <= reach.last for _, last in names.rollups),
                )
            )
            if reach.last >= names.newest or number + 1 == len(bases):
                break
    return tuple(found), tuple(problems)
