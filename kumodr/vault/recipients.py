"""What a node seals to: the recipients of the vault's marker, or those that its own key put in their place later.

`recipients/NODE/NUMBER.json` is a line of JSON and one with a signature. A node believes its own key only: whoever else
can write to the vault could have the mail sealed to themselves. So keys are changed on each node that adds points.
Objects of different recipients have different names, so that what is opened with the new identity is whole.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.vault.keys import NodeKey
from kumodr.vault.numbers import newest_number
from kumodr.vault.open import FORMAT, Vault
from kumodr.vault.signature import check_signature

PREFIX = "recipients/"
_LARGEST = 1 << 20


def sealed_to(vault: Vault, key: NodeKey) -> Vault:
    """Given a vault and a node's key, return the vault with what that node seals to now.

    Raise RecipientsUnknown where the newest that stands there for the node is not signed by this key: to go on with
    those from before could seal to a key that was given up because it was stolen.
    """
    numbers = numbers_of(vault, key.node)
    if not numbers:
        return vault
    name = _name(key.node, numbers[-1])
    text = vault.store.get(name, _LARGEST)
    try:
        end = text.index(b"\n") + 1
        body, signature = json.loads(text[:end]), json.loads(text[end:])
        check_signature(text[:end], key.public, b64decode(signature["ed25519"], validate=True))
        if (body["format"], body["vault"], body["node"], body["number"]) != (FORMAT, vault.id, key.node, numbers[-1]):
            raise ValueError("another vault's, node's or number")
        recipients = tuple(str(each) for each in body["recipients"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise errors.RecipientsUnknown(f"{name} is not signed by the key of this host") from None
    return replace(vault, recipients=recipients, generation=numbers[-1])


def rotate(vault: Vault, key: NodeKey, recipients: Sequence[str], clock: Clock) -> Vault:
    """Given at least one recipient, let the node seal to these from its next run on; return the vault so.

    Raise UsageWrong for what is no recipient, AnotherRun where somebody else did the same now.
    """
    from kumodr.vault.age import public_of_recipient

    for recipient in recipients:
        try:
            public_of_recipient(recipient)
        except ValueError:
            raise errors.UsageWrong(f"{recipient} is no age recipient", remedy="give a public key, age1…") from None
    number = max(numbers_of(vault, key.node), default=0) + 1
    body = json.dumps(
        {
            "format": FORMAT,
            "vault": vault.id,
            "node": key.node,
            "number": number,
            "time": text_of_time(clock()),
            "recipients": list(recipients),
        }
    ).encode()
    signature = {"key": key.public, "ed25519": b64encode(key.sign(body + b"\n")).decode()}
    pieces = [body + b"\n", json.dumps(signature).encode() + b"\n"]
    if not vault.store.put_if_absent(_name(key.node, number), pieces):
        raise errors.AnotherRun("somebody else changes the keys of this node")
    return replace(vault, recipients=tuple(recipients), generation=number)


def numbers_of(vault: Vault, node: str) -> tuple[int, ...]:
    """Given a node, return the numbers of what was put for it, ascending."""
    found: list[int] = []
    for name in vault.store.list(f"{PREFIX}{node}/"):
        digits = name.rpartition("/")[2].removesuffix(".json")
        if digits.isascii() and digits.isdigit() and name == _name(node, int(digits)):
            found.append(int(digits))
    listed = max(found, default=0)
    found += range(listed + 1, newest_number(vault.store, partial(_name, node), listed) + 1)
    return tuple(sorted(found))


def _name(node: str, number: int) -> str:
    return f"{PREFIX}{node}/{number:08d}.json"
