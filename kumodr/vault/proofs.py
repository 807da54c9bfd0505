"""When points were last proved good, by how: read from what `kumodr verify` recorded, without a key."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

from kumodr import errors
from kumodr.clock import time_of_text
from kumodr.vault.open import Vault

_LARGEST_RECORD = 1 << 20
_MOST_READ = 200


def good_levels(vault: Vault) -> dict[str, frozenset[str]]:
    """Given a vault, return by point's id the levels at which it was found good and not found bad later."""
    names = sorted(vault.store.list("verified/"), key=lambda name: name.rpartition("/")[2])
    with ThreadPoolExecutor(8, thread_name_prefix="kumodr-proofs") as pool:
        records = list(pool.map(partial(_record, vault), names))
    found: dict[str, frozenset[str]] = {}
    for name, record in zip(names, records, strict=True):
        point = name.split("/")[1]
        if record is None or record[0] != point:
            continue
        _, level, good = record
        found[point] = found.get(point, frozenset()) | {level} if good else frozenset()
    return found


def _record(vault: Vault, name: str) -> tuple[str, str, bool] | None:
    try:
        document = json.loads(vault.store.get(name, _LARGEST_RECORD).split(b"\n")[0])
        point, level = str(document["point"]), str(document["level"])
        return (point, level, document["good"] is True) if level in ("shallow", "deep", "restore") else None
    except (ValueError, KeyError, TypeError, errors.ObjectDamaged, errors.ObjectMissing):
        return None


def newest_proofs(vault: Vault) -> dict[str, datetime]:
    """Given a vault, return by level (`shallow`, `deep`, `restore`) when a point was last found good.

    The newest records are read, a bounded number of them; what is malformed is passed over.
    """
    names = sorted(vault.store.list("verified/"), key=lambda name: name.rpartition("/")[2], reverse=True)
    found: dict[str, datetime] = {}
    for name in names[:_MOST_READ]:
        try:
            document = json.loads(vault.store.get(name, _LARGEST_RECORD).split(b"\n")[0])
            level, moment = str(document["level"]), time_of_text(document["time"])
            if document["good"] is True and level in ("shallow", "deep", "restore"):
                found[level] = max(moment, found.get(level, moment))
        except (ValueError, KeyError, TypeError, errors.ObjectDamaged, errors.ObjectMissing):
            continue
    return found
