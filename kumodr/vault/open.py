"""A vault: a store with the marker that says so."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.vault.store import Store, open_store

FORMAT = 1
MARKER = "kumodr-vault.json"
_LARGEST_MARKER = 1 << 20


@dataclass(frozen=True)
class Vault:
    """An open vault: its store, its id, and the recipients (`age1…`) that new objects are sealed to.

    `generation` counts the changes of the recipients: 0 are those of the marker (`vault/recipients.py`).
    """

    store: Store
    id: str
    recipients: tuple[str, ...]
    generation: int = 0

    def public_keys(self) -> list[Any]:
        """Return the recipients as keys."""
        from kumodr.vault.age import public_of_recipient

        return [public_of_recipient(recipient) for recipient in self.recipients]


def create_vault(url: str, recipients: Sequence[str], clock: Clock) -> Vault:
    """Given an address and recipients, make an empty vault there. Raise VaultExists, UsageWrong for a recipient."""
    import uuid

    from kumodr.vault.age import public_of_recipient

    for recipient in recipients:
        try:
            public_of_recipient(recipient)
        except ValueError:
            raise errors.UsageWrong(f"{recipient} is no age recipient", remedy="give a public key, age1…") from None
    store = open_store(url, create=True, marker=MARKER)
    vault = Vault(store, str(uuid.uuid4()), tuple(recipients))
    marker = {"format": FORMAT, "vault": vault.id, "created": text_of_time(clock()), "recipients": list(recipients)}
    if not store.put_if_absent(MARKER, [json.dumps(marker, indent=1).encode() + b"\n"]):
        raise errors.VaultExists(f"there is a vault already at {store.address}")
    return vault


def open_vault(url: str) -> Vault:
    """Given an address, return the vault there. Raise VaultMissing or VaultFormatUnknown."""
    return opened_at(open_store(url, marker=MARKER))


def opened_at(store: Store) -> Vault:
    """Given a store, return the vault in it. Raise VaultMissing or VaultFormatUnknown."""
    try:
        text = store.get(MARKER, _LARGEST_MARKER)
    except errors.ObjectMissing:
        raise errors.VaultMissing(f"there is no vault at {store.address}") from None
    try:
        marker = json.loads(text)
        if marker["format"] != FORMAT:
            raise errors.VaultFormatUnknown(f"the vault at {store.address} has format {str(marker['format'])[:20]}")
        return Vault(store, str(marker["vault"]), tuple(str(each) for each in marker["recipients"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.VaultFormatUnknown(f"the marker {MARKER} at {store.address} is damaged") from error
