"""The recovery points of a vault: read, and judged by signature and chain."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from kumodr import errors
from kumodr.vault import manifest
from kumodr.vault.cleared import Cleared, cleared_by_node
from kumodr.vault.facts import Point
from kumodr.vault.nodes import known_keys, why_not_trusted
from kumodr.vault.numbers import newest_number
from kumodr.vault.open import Vault

_READERS = 8
"""How many requests are under way at once: a distant store answers each in tens of milliseconds."""

_PARTS = 3
"""`points/NODE/NUMBER.json`"""

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

Pins = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Survey:
    """The points that can be trusted, oldest first by node and number, and everything that is wrong, by point.

    `cleared` is what prune took out, by node; `whole` are the points with the components that are gone from them.
    `late` are manifests that the store has and does not list.
    """

    points: tuple[Point, ...]
    problems: tuple[errors.KumodrError, ...]
    cleared: Mapping[str, Cleared]
    whole: tuple[Point, ...]
    late: tuple[str, ...] = ()

    def whole_of(self, node: str) -> tuple[Point, ...]:
        """Given a node, return its points with the components that are gone from them."""
        return tuple(point for point in self.whole if point.node == node)


def survey(vault: Vault, pins: Pins) -> Survey:
    """Given a vault and the node keys that the identity file vouches for, read every manifest and judge it.

    A manifest that is damaged, forged, or not what the next one says came before it, is left out and named; the
    others stay usable: each is signed for itself.
    """
    known = known_keys(vault)
    good: list[Point] = []
    problems: list[errors.KumodrError] = []
    listed = [name for name in vault.store.list("points/") if name.endswith(".json")]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="kumodr-points") as pool:
        late = [name for each in pool.map(partial(_late, vault, listed), _nodes(listed, known)) for name in each]
        for outcome in pool.map(partial(_judged, vault, known, pins), sorted({*listed, *late})):
            if isinstance(outcome, Point):
                good.append(outcome)
            else:
                problems.append(outcome)
        cleared = cleared_by_node(vault, known, pins)
        good.sort(key=lambda point: (point.node, point.sequence))
        points = tuple(pool.map(partial(_as_it_is, vault, cleared), good))
    return Survey(points, (*problems, *chain_problems(good, cleared)), cleared, tuple(good), tuple(late))


def _judged(vault: Vault, known: Mapping[str, set[str]], pins: Pins, name: str) -> Point | errors.KumodrError:
    try:
        point = manifest.parse(vault.store.get(name, manifest.LARGEST), name, vault.id)
    except (errors.ManifestForged, errors.VaultFormatUnknown, errors.ObjectDamaged, errors.ObjectMissing) as error:
        return error
    return why_not_trusted(point.node, point.signed_by, known, pins) or point


def _nodes(listed: Sequence[str], known: Mapping[str, set[str]]) -> list[str]:
    found = {*known, *(parts[1] for name in listed if len(parts := name.split("/")) == _PARTS)}
    return sorted(node for node in found if _NODE.fullmatch(node))


def _late(vault: Vault, listed: Sequence[str], node: str) -> list[str]:
    """Return a node's manifests behind the newest that is listed."""
    newest = manifest.newest_of(listed, node)
    there = newest_number(vault.store, partial(manifest.name_of, node), newest)
    return [manifest.name_of(node, number) for number in range(newest + 1, there + 1)]


def _as_it_is(vault: Vault, cleared: Mapping[str, Cleared], point: Point) -> Point:
    """Return the point without the components that prune took out of it: on record, and their index is gone."""
    gone = cleared.get(point.node, Cleared()).sections.get(point.sequence)
    if not gone:
        return point
    kept = [
        section
        for section in point.sections
        if section.component not in gone or not section.index or vault.store.size(section.index[0].name) is not None
    ]
    return point if len(kept) == len(point.sections) else replace(point, sections=tuple(kept))


def chain_problems(points: Sequence[Point], cleared: Mapping[str, Cleared] | None = None) -> list[errors.KumodrError]:
    """Given points in order, return each break: a manifest that is missing, or another than its successor followed.

    What prune took out, on record, is no break where the record leads from one manifest's hash to the next one's.
    """
    found: list[errors.KumodrError] = []
    for node in sorted({point.node for point in points}):
        before: Point | None = None
        gone = (cleared or {}).get(node, Cleared())
        for point in (each for each in points if each.node == node):
            at, digest = (before.sequence, before.sha256) if before else (0, None)
            if point.sequence > at + 1 and gone.leads(at, digest, point):
                pass
            elif before is None and point.sequence > 1:
                found.append(errors.ChainBroken(f"points before {point.id} are missing"))
            elif before is None and point.previous is not None and point.sequence == 1:
                found.append(errors.ChainBroken(f"{point.id} is the first point and names one before it"))
            elif before is not None and point.sequence != before.sequence + 1:
                found.append(errors.ChainBroken(f"points between {before.id} and {point.id} are missing"))
            elif before is not None and point.previous != before.sha256:
                found.append(errors.ChainBroken(f"{point.id} does not follow the {before.id} that is in the vault"))
            before = point
    return found


def find(points: Sequence[Point], wanted: str | None) -> Point:
    """Given points and an id (None or "latest": the newest), return that point. Raise PointMissing."""
    if wanted is None or wanted == "latest":
        if not points:
            raise errors.PointMissing("the vault holds no recovery point", remedy="store one with `kumodr backup`")
        return max(points, key=lambda point: (point.taken, point.sequence))
    for point in points:
        if point.id == wanted:
            return point
    raise errors.PointMissing(f"there is no recovery point {wanted}")
