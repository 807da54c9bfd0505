"""Which stored sections make up the state that is asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kumodr import errors
from kumodr.vault.facts import Point, Section


@dataclass(frozen=True)
class Chosen:
    """One component's section and the point it comes from."""

    point: Point
    section: Section


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
