"""What is known of each point from having been verified: read from what `kumodr verify` recorded, without a key."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kumodr import errors
from kumodr.vault.facts import Point
from kumodr.vault.open import Vault
from kumodr.vault.proofs import LEVELS

_LARGEST_RECORD = 1 << 20
_READERS = 8
_MOST_READ = 50
"""Newest records of one point that are looked at."""


def latest_verifications(vault: Vault, points: Sequence[Point]) -> dict[str, dict[str, Any] | None]:
    """Given points, return by id the newest record of each having been verified, as {level, time, good, …}, or None.

    A point that was found bad stays so until as thorough a look finds it good: its record then is the bad one, whatever
    came later. It has `stream` where the stream on top was verified too. Names are listed once.
    """
    wanted = {point.id: point for point in points}
    names: dict[str, list[str]] = {each: [] for each in wanted}
    for name in vault.store.list("verified/"):
        point = name.split("/")[1] if name.count("/") == _SLASHES else ""
        if point in names:
            names[point].append(name)
    newest = [(each, name) for each, found in names.items() for name in sorted(found, reverse=True)[:_MOST_READ]]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="kumodr-verified") as pool:
        records = list(pool.map(partial(_record, vault), [wanted[each] for each, _ in newest], [n for _, n in newest]))
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in wanted}
    for (point, _), record in zip(newest, records, strict=True):
        if record is not None:
            found[point].append(record)
    return {point: _standing(each) for point, each in found.items()}


_SLASHES = 2
"""`verified/POINT/TIME-RANDOM.json`"""


def _standing(records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Given records, the newest first, return the one that says how the point stands."""
    best = -1
    for each in records:
        depth = LEVELS.index(each["level"])
        if not each["good"] and depth > best:
            return each
        best = max(best, depth)
    return records[0] if records else None


def _record(vault: Vault, point: Point, name: str) -> dict[str, Any] | None:
    try:
        document: Mapping[str, Any] = json.loads(vault.store.get(name, _LARGEST_RECORD).split(b"\n")[0])
        if document["manifest"] != point.sha256 or document["level"] not in LEVELS:
            return None
        if not isinstance(document["good"], bool):
            return None
        stream = {"stream": document["stream"]} if isinstance(document.get("stream"), dict) else {}
        return {each: document[each] for each in ("level", "time", "good", "problems")} | stream
    except (ValueError, KeyError, TypeError, RecursionError, errors.ObjectDamaged, errors.ObjectMissing):
        return None
