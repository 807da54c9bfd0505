"""The names of an epoch that tell how far it leads, without all of them: a day of seconds is 86,400.

Roll-ups repeat a minute each, so they are listed, and single segments only where no roll-up leads on: behind the last
one, and in gaps, where a small one is asked for by name. The ends that a state may have are then minutes, and the
seconds of the last one: enough to say until when everything can be restored. A restore lists them all.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from kumodr.vault.open import Vault
from kumodr.vault.segment import name_of, prefix_of
from kumodr.vault.stream import Listing, Part, listing, part_of_name

_READERS = 8
_MOST_ASKED = 512
"""Names asked for one by one; where gaps are larger, a whole listing is cheaper."""


def short_listing(vault: Vault, node: str, epoch: int, begin: int) -> Listing:
    """Given where a state begins in an epoch, return names that lead as far from there as those of the whole listing.

    It lacks segments that are repeated by a roll-up in it.
    """
    prefix = prefix_of(node, epoch)
    names = vault.store.list(f"{prefix}rollup/", f"{prefix}rollup/{max(begin - _MOST_ASKED, 0):010d}")
    rollups = sorted({(part.first, part.last) for part in _parts(names) if part.last >= begin})
    reach, gaps = begin - 1, list[int]()
    for first, last in rollups:
        gaps += range(reach + 1, min(first, reach + 2 + _MOST_ASKED))
        reach = max(reach, last)
    if len(gaps) > _MOST_ASKED:
        return listing(vault, node, epoch)
    behind = list(_parts(vault.store.list(prefix, name_of(node, epoch, reach, reach) if reach else "")))
    singles = {part.first for part in behind if part.first == part.last and part.first > reach}
    since = {(part.first, part.last) for part in behind if part.first < part.last and part.last >= begin}
    asked = _there(vault, node, epoch, gaps)
    return Listing(node, epoch, frozenset(singles | asked), tuple(sorted({*rollups, *since})))


def _parts(names: Iterator[str]) -> Iterator[Part]:
    return (part for part in map(part_of_name, names) if part is not None)


def _there(vault: Vault, node: str, epoch: int, numbers: Sequence[int]) -> set[int]:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="kumodr-names") as pool:
        names = [name_of(node, epoch, number, number) for number in numbers]
        sizes = pool.map(vault.store.size, names)
        return {number for number, size in zip(numbers, sizes, strict=True) if size is not None}
