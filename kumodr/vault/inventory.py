"""What a vault holds, in numbers, read without a key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kumodr.clock import text_of_time
from kumodr.vault.facts import Point
from kumodr.vault.open import Vault
from kumodr.vault.points import survey
from kumodr.vault.stream import part_of_name

_GROWTH_OVER = timedelta(days=7)


@dataclass(frozen=True)
class Inventory:
    """`components` are sealed bytes by component, each object once; `unreferenced` are objects that no point names.

    `segments` are the objects of streams, roll-ups among them, `segment_bytes` what they take. `growth` is bytes a day,
    of points and streams, in the last week before the newest point; None where that is less than an hour.
    """

    address: str
    id: str
    points: int
    oldest: str | None
    newest: str | None
    objects: int
    stored_bytes: int
    components: Mapping[str, int]
    unreferenced: int
    segments: int
    segment_bytes: int
    growth: float | None
    problems: tuple[str, ...]


def inventory(vault: Vault) -> Inventory:
    """Given a vault, count what its manifests name and what lies in it beside."""
    found = survey(vault, {})
    sizes: dict[str, int] = {}
    components: dict[str, int] = {}
    for point in found.points:
        for section in point.sections:
            for stored in (*section.index, *section.objects):
                if stored.name not in sizes:
                    sizes[stored.name] = stored.size
                    components[section.component] = components.get(section.component, 0) + stored.size
    there = set(vault.store.list("objects/"))
    segments = [entry for entry in vault.store.entries("stream/") if part_of_name(entry.name) is not None]
    times = sorted(point.taken for point in found.points)
    return Inventory(
        address=vault.store.address,
        id=vault.id,
        points=len(found.points),
        oldest=text_of_time(times[0]) if times else None,
        newest=text_of_time(times[-1]) if times else None,
        objects=len(there),
        stored_bytes=sum(sizes.values()),
        components=components,
        unreferenced=len(there - sizes.keys()),
        segments=len(segments),
        segment_bytes=sum(entry.size for entry in segments),
        growth=growth(found.points, [(entry.modified, entry.size) for entry in segments]),
        problems=tuple(str(problem) for problem in found.problems),
    )


def growth(points: Sequence[Point], segments: Sequence[tuple[datetime, int]]) -> float | None:
    """Given points, and when segments of which size were stored, return the bytes per day of the last week.

    An object counts for the first point that names it. What the oldest point brought is not growth.
    """
    ordered = sorted(points, key=lambda point: (point.taken, point.node, point.sequence))
    if not ordered:
        return None
    end = ordered[-1].taken
    begin = max(ordered[0].taken, end - _GROWTH_OVER)
    days = (end - begin) / timedelta(days=1)
    if days < 1 / 24:
        return None
    seen: set[str] = set()
    added = sum(size for moment, size in segments if begin < moment <= end)
    for point in ordered:
        for stored in (each for section in point.sections for each in (*section.index, *section.objects)):
            added += stored.size if stored.name not in seen and point.taken > begin else 0
            seen.add(stored.name)
    return added / days
