"""A vault: a store with the marker that says so."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.plan.model import VaultPlan
from kumodr.vault.store import Store, open_store

FORMAT = 1
MARKER = "kumodr-vault.json"
_LARGEST_MARKER = 1 << 20
_CONDITIONAL = "conditional_put"
"""In the marker, false where the store has no conditional put; without it, it has."""


@dataclass(frozen=True)
class Vault:
    """An open vault: its store, its id, and the recipients (`age1…`) that new objects are sealed to.

    `generation` counts the changes of the recipients: 0 are those of the marker (`vault/recipients.py`).
    Where the store has no conditional put, only one writer may add: see `vault/probe.py` and `nodes.register`.
    """

    store: Store
    id: str
    recipients: tuple[str, ...]
    generation: int = 0
    conditional_put: bool = True

    def public_keys(self) -> list[Any]:
        """Return the recipients as keys."""
        from kumodr.vault.age import public_of_recipient

        return [public_of_recipient(recipient) for recipient in self.recipients]


def create_vault(
    where: str | VaultPlan, recipients: Sequence[str], clock: Clock, *, unconditional: bool = False
) -> Vault:
    """Given an address and recipients, make an empty vault there.

    Raise VaultExists, UsageWrong for a recipient, and StoreUnconditional where the store has no conditional put, unless
    `unconditional` allows a vault for a single writer.
    """
    import uuid

    from kumodr.vault.age import public_of_recipient

    for recipient in recipients:
        try:
            public_of_recipient(recipient)
        except ValueError:
            raise errors.UsageWrong(f"{recipient} is no age recipient", remedy="give a public key, age1…") from None
    store = open_store(where, create=True, marker=MARKER)
    if store.size(MARKER) is not None:
        raise errors.VaultExists(f"there is a vault already at {store.address}")
    conditional = proved(where, unconditional=unconditional)
    store = store if conditional else store.unconditional()
    vault = Vault(store, str(uuid.uuid4()), tuple(recipients), conditional_put=conditional)
    marker = {"format": FORMAT, "vault": vault.id, "created": text_of_time(clock()), "recipients": list(recipients)}
    if not store.put_if_absent(MARKER, [marker_text(marker, conditional=conditional)]):
        raise errors.VaultExists(f"there is a vault already at {store.address}")
    return vault


def proved(where: str | VaultPlan, *, unconditional: bool) -> bool:
    """Given where a vault is to begin, return whether the put-if-absent of its store was seen to be one.

    Raise StoreUnconditional where it is none and that is not allowed.
    """
    from kumodr.vault.probe import why_unconditional

    store = open_store(where, create=True)  # without the marker, which is not there yet
    reason = why_unconditional(store)
    if reason is None:
        return True
    if not unconditional:
        raise errors.StoreUnconditional(
            f"the store at {store.address} has no conditional put: {reason}",
            remedy="choose a store that has (If-None-Match), or a directory; for one host that alone adds to it, and "
            "one prune at a time, --without-conditional-put allows it",
        )
    return False


def marker_text(marker: Mapping[str, Any], *, conditional: bool) -> bytes:
    """Given a marker's fields, return its bytes, for a store that has a conditional put or one that has none."""
    fields = {key: value for key, value in marker.items() if key != _CONDITIONAL}
    return json.dumps(fields | ({} if conditional else {_CONDITIONAL: False}), indent=1).encode() + b"\n"


def open_vault(where: str | VaultPlan) -> Vault:
    """Given an address, return the vault there. Raise VaultMissing or VaultFormatUnknown."""
    return opened_at(open_store(where, marker=MARKER))


def opened_at(store: Store) -> Vault:
    """Given a store, return the vault in it. Raise VaultMissing or VaultFormatUnknown."""
    marker = read_marker(store)
    try:
        conditional = marker.get(_CONDITIONAL) is not False
        usable = store if conditional else store.unconditional()
        recipients = tuple(str(each) for each in marker["recipients"])
        return Vault(usable, str(marker["vault"]), recipients, conditional_put=conditional)
    except (KeyError, TypeError) as error:
        raise errors.VaultFormatUnknown(f"the marker {MARKER} at {store.address} is damaged") from error


def read_marker(store: Store) -> dict[str, Any]:
    """Given a store, return the fields of the marker in it. Raise VaultMissing or VaultFormatUnknown."""
    try:
        text = store.get(MARKER, _LARGEST_MARKER)
    except errors.ObjectMissing:
        raise errors.VaultMissing(f"there is no vault at {store.address}") from None
    try:
        marker = json.loads(text)
        if marker["format"] != FORMAT:
            raise errors.VaultFormatUnknown(f"the vault at {store.address} has format {str(marker['format'])[:20]}")
        return dict(marker)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.VaultFormatUnknown(f"the marker {MARKER} at {store.address} is damaged") from error
