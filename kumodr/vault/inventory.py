"""What a vault holds, in numbers, read without a key."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kumodr.clock import text_of_time
from kumodr.vault.open import Vault
from kumodr.vault.points import survey
from kumodr.vault.stream import part_of_name


@dataclass(frozen=True)
class Inventory:
    """`components` are sealed bytes by component, each object once; `unreferenced` are objects that no point names.

    `segments` are the objects of streams, roll-ups among them, `segment_bytes` what they take.
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
    segments = [name for name in vault.store.list("stream/") if part_of_name(name) is not None]
    with ThreadPoolExecutor(8, thread_name_prefix="kumodr-sizes") as pool:
        segment_bytes = sum(size or 0 for size in pool.map(vault.store.size, segments))
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
        segment_bytes=segment_bytes,
        problems=tuple(str(problem) for problem in found.problems),
    )
