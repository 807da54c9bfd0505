"""The stream of a node: which segments there are, how far they can be trusted, and where a state ends in it.

Names are listed once for an epoch; to know the range, only the head of its last good segment is read. A head counts
where a trusted key signed it, for exactly this name and size. `streamread.py` reads what is in the segments.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from kumodr import errors
from kumodr.vault.nodes import known_keys, why_not_trusted
from kumodr.vault.open import Vault
from kumodr.vault.segment import LARGEST_HEAD, Head, body_at, head_of, name_of, prefix_of

_NAME = re.compile(r"stream/([^/]+)/(\d{8,18})/(?:(\d{10,18})|rollup/(\d{10,18})-(\d{10,18}))\.seg")
_HEAD_EXPECTED = 4 << 10
NOT_GOOD = (errors.ManifestForged, errors.VaultFormatUnknown, errors.ObjectMissing, errors.ObjectDamaged)
"""What a segment that does not count raises; everything else is not the segment's fault."""


@dataclass(frozen=True, order=True)
class Part:
    """One object of the stream, by what its name says."""

    node: str
    epoch: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """Its name in the vault."""
        return name_of(self.node, self.epoch, self.first, self.last)


@dataclass(frozen=True)
class Listing:
    """The names of one epoch: numbers of the single segments, and the roll-ups as (first, last) in order."""

    node: str
    epoch: int
    singles: frozenset[int]
    rollups: tuple[tuple[int, int], ...]

    @property
    def newest(self) -> int:
        """The highest number that any name says, 0 where there is none."""
        return max(max(self.singles, default=0), max((last for _, last in self.rollups), default=0))


@dataclass(frozen=True)
class Trust:
    """Whose signatures count: the keys that the vault knows by node, and the identity file's word for some of them."""

    known: Mapping[str, set[str]]
    pins: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Extent:
    """A range of a stream that can be restored: numbers `first` to `last`, `taken` the moment after `last`."""

    node: str
    epoch: int
    first: int
    last: int
    taken: datetime


def trust_of(vault: Vault, pins: Mapping[str, frozenset[str]]) -> Trust:
    """Given a vault and the identity file's pins, return whose signatures count."""
    return Trust(known_keys(vault), pins)


def part_of_name(name: str) -> Part | None:
    """Given an object's name, return the part of a stream that it stands for, or None."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    node, epoch, single, first, last = match.groups()
    part = Part(node, int(epoch), int(single or first), int(single or last))
    return part if part.name == name and 0 < part.first <= part.last else None


def epochs(vault: Vault, node: str) -> dict[int, Listing]:
    """Given a node, list every name of its stream once; return its epochs by number, oldest first."""
    return _listed(vault, prefix_of(node))


def listing(vault: Vault, node: str, epoch: int) -> Listing:
    """Given a node and an epoch, list its names once."""
    return _listed(vault, prefix_of(node, epoch)).get(epoch) or Listing(node, epoch, frozenset(), ())


def _listed(vault: Vault, prefix: str) -> dict[int, Listing]:
    singles: dict[int, set[int]] = {}
    rollups: dict[int, list[tuple[int, int]]] = {}
    node = ""
    for part in map(part_of_name, vault.store.list(prefix)):
        if part is None:
            continue
        node = part.node
        singles.setdefault(part.epoch, set())
        if part.first == part.last:
            singles[part.epoch].add(part.first)
        else:
            rollups.setdefault(part.epoch, []).append((part.first, part.last))
    return {
        epoch: Listing(node, epoch, frozenset(singles[epoch]), tuple(sorted(rollups.get(epoch, ()))))
        for epoch in sorted(singles)
    }


def path(found: Listing, begin: int, end: int | None = None, without: Collection[Part] = ()) -> Iterator[Part]:
    """Given a listing, yield the fewest objects that lead from number `begin` on, without gap, at most to `end`.

    The first may be a roll-up that began before `begin`: changes are absolute, so doing some of them again is harmless.
    """
    limit = found.newest if end is None else end
    ahead = iter(found.rollups)
    number, rollup = begin, next(ahead, None)
    while number <= limit:
        best = number if number in found.singles else 0
        first = number
        if Part(found.node, found.epoch, number, number) in without:
            best = 0
        while rollup is not None and rollup[0] <= number:
            anchored = rollup[0] == number or number == begin
            better = max(best, number - 1) < rollup[1] <= limit
            if anchored and better and Part(found.node, found.epoch, *rollup) not in without:
                first, best = rollup
            rollup = next(ahead, None)
        if not best:
            return
        yield Part(found.node, found.epoch, first, best)
        number = best + 1


def read_head(vault: Vault, part: Part, trust: Trust) -> Head:
    """Given a part, read the start of its object; return its head, signed by a key that counts, the size as promised.

    Raise one of NOT_GOOD, naming the object.
    """
    start, size = vault.store.start(part.name, _HEAD_EXPECTED)
    if not body_at(start) and size > len(start):
        start, size = vault.store.start(part.name, 2 * LARGEST_HEAD)
    head = head_of(start, part.name, vault.id)
    refusal = why_not_trusted(head.node, head.signed_by, trust.known, trust.pins)
    if refusal is not None:
        raise errors.ManifestForged(f"{part.name}: {refusal.what}", remedy=refusal.remedy)
    if size != body_at(start) + head.sealed_size:
        raise errors.ObjectDamaged(f"object {part.name} has {size} bytes and should have another size")
    return head


class Heads:
    """The heads at which a state may end, read when they are asked for, each once."""

    def __init__(self, vault: Vault, found: Listing, trust: Trust) -> None:
        self._vault = vault
        self._found = found
        self._trust = trust
        self._heads: dict[int, Head | errors.KumodrError] = {}
        self._rollup_to = {last: first for first, last in reversed(found.rollups)}

    def at(self, number: int) -> Head | errors.KumodrError:
        """Given a number, return the head of what ends with it, or why it does not count."""
        if number not in self._heads:
            parts = [number] if number in self._found.singles else []
            parts += [self._rollup_to[number]] if number in self._rollup_to else []
            found: Head | errors.KumodrError = errors.ObjectMissing(f"no segment ends with number {number}")
            for first in parts:
                try:
                    found = read_head(
                        self._vault, Part(self._found.node, self._found.epoch, first, number), self._trust
                    )
                    break
                except NOT_GOOD as error:
                    found = error
            self._heads[number] = found
        return self._heads[number]


def extent(
    vault: Vault, found: Listing, begin: int, trust: Trust, at: datetime | None = None
) -> tuple[Extent | None, tuple[errors.KumodrError, ...]]:
    """Given an epoch's names and where to begin, return how far it leads, not after `at`, and what is wrong behind.

    Times are taken to rise with the numbers; where a clock went back, reading stops before the first later one. The
    segments before the last are looked at when they are read.
    """
    found, reach = completed(vault, found, begin)
    problems: list[errors.KumodrError] = []
    if reach < found.newest:
        problems.append(why_it_ends(found, reach))
    numbers = {number for number in found.singles if begin <= number <= reach}
    ends = sorted(numbers | {last for _, last in found.rollups if begin <= last <= reach})
    heads = Heads(vault, found, trust)
    count = len(ends) if at is None else _not_after(heads, ends, at)
    bad: list[errors.KumodrError] = []
    while count:
        head = heads.at(ends[count - 1])
        if isinstance(head, errors.KumodrError):
            bad.append(head)
        elif not head.partial:
            return Extent(found.node, found.epoch, begin, head.last, head.taken), (*problems, *bad[:1])
        count -= 1
    return None, (*problems, *bad[:1])


def completed(vault: Vault, found: Listing, begin: int) -> tuple[Listing, int]:
    """Given a listing, return it with what it missed, and the number that it leads to from `begin` without a gap.

    A listing may miss names that are put while it runs, though it has later ones, or those that were put last.
    """
    reach = begin - 1
    while True:
        for part in path(found, reach + 1):
            reach = part.last
        if vault.store.size(Part(found.node, found.epoch, reach + 1, reach + 1).name) is None:
            return found, reach
        found = Listing(found.node, found.epoch, found.singles | {reach + 1}, found.rollups)


def why_it_ends(found: Listing, reach: int) -> errors.KumodrError:
    """Given a listing that leads to a number and has later ones, return the break."""
    missing = Part(found.node, found.epoch, reach + 1, reach + 1).name
    return errors.ChainBroken(f"{missing} is missing, and segments up to number {found.newest} follow")


def _not_after(heads: Heads, ends: list[int], at: datetime) -> int:
    """Return how many of the ends are not after `at`; those whose head does not count are passed over."""
    low, high = 0, len(ends)
    while low < high:
        middle = probe = (low + high) // 2
        while probe >= low and isinstance(heads.at(ends[probe]), errors.KumodrError):
            probe -= 1
        head = heads.at(ends[probe]) if probe >= low else None
        if isinstance(head, Head) and head.taken > at:
            high = probe
        else:
            low = middle + 1
    return low
