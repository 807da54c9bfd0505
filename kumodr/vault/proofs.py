"""When points were last proved good, by how: read from what `kumodr verify` recorded, without a key."""

import json
from datetime import datetime

from kumodr import errors
from kumodr.clock import time_of_text
from kumodr.vault.open import Vault

_LARGEST_RECORD = 1 << 20
_MOST_READ = 200


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
