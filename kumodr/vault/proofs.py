"""When points were last found good, or bad, and by how: read from what `kumodr verify` recorded, without a key."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from kumodr import errors
from kumodr.clock import time_of_text
from kumodr.vault.facts import Point
from kumodr.vault.open import Vault

LEVELS = ("shallow", "deep", "restore")
"""How well a point was looked at, the least first."""

_LARGEST_RECORD = 1 << 20
_MOST_READ = 200
_SKEW = timedelta(minutes=1)
"""A record farther in the future says nothing: it comes from a clock that was wrong, or from nobody honest."""


@dataclass(frozen=True)
class Result:
    """One record: the point, the hash of its manifest, the level, when it was looked at, and whether it was good."""

    point: str
    manifest: str
    level: str
    time: datetime
    good: bool


def good_levels(vault: Vault) -> dict[str, frozenset[str]]:
    """Given a vault, return by point's id the levels at which it was found good and not found bad later."""
    names = sorted(vault.store.list("verified/"), key=lambda name: name.rpartition("/")[2])
    found: dict[str, frozenset[str]] = {}
    for result in _read(vault, names):
        levels = found.get(result.point, frozenset())
        found[result.point] = levels | {result.level} if result.good else frozenset()
    return found


def newest_results(vault: Vault, now: datetime) -> tuple[Result, ...]:
    """Given a vault and the time, return the newest records, a bounded number of them, the newest first.

    What is malformed, or of a time ahead of now, is passed over.
    """
    names = sorted(vault.store.list("verified/"), key=lambda name: name.rpartition("/")[2], reverse=True)
    found = [each for each in _read(vault, names[:_MOST_READ]) if each.time - now < _SKEW]
    return tuple(sorted(found, key=lambda each: each.time, reverse=True))


def newest_proofs(results: Iterable[Result]) -> dict[str, Result]:
    """Given results, the newest first, return by level the newest one that found a point good."""
    found: dict[str, Result] = {}
    for each in results:
        if each.good:
            found.setdefault(each.level, each)
    return found


def found_bad(results: Sequence[Result], point: Point) -> Result | None:
    """Given results, the newest first, return the one that found this point bad, or None.

    Only as thorough a look as that one finds it good again: all objects being there does not mend a byte.
    """
    best = -1
    for each in results:
        if each.point != point.id or each.manifest != point.sha256:
            continue
        if each.good:
            best = max(best, LEVELS.index(each.level))
        elif LEVELS.index(each.level) > best:
            return each
    return None


def _read(vault: Vault, names: Sequence[str]) -> list[Result]:
    with ThreadPoolExecutor(8, thread_name_prefix="kumodr-proofs") as pool:
        return [each for each in pool.map(partial(_result, vault), names) if each is not None]


def _result(vault: Vault, name: str) -> Result | None:
    try:
        document = json.loads(vault.store.get(name, _LARGEST_RECORD).split(b"\n")[0])
        result = Result(
            point=str(document["point"]),
            manifest=str(document["manifest"]),
            level=str(document["level"]),
            time=time_of_text(document["time"]),
            good=document["good"] is True,
        )
        return result if result.level in LEVELS and name.split("/")[1] == result.point else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, errors.ObjectDamaged, errors.ObjectMissing):
        return None
