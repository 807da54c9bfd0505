"""The nodes that add to a vault, and whose signatures count."""

import hashlib
import json
from collections.abc import Mapping

from kumodr import errors
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import Vault

KEEPER = "keeper"
"""The name under which a machine that only prunes has its key."""

_LARGEST = 1 << 16


def register(vault: Vault, key: NodeKey) -> None:
    """Given a node's key, make it known in the vault, once.

    Raise StoreUnconditional where the store has no conditional put and another key adds to the vault: two hosts that
    both believe to be a node would replace each other's points and segments, and neither would know.
    """
    if not vault.conditional_put and key.node != KEEPER:
        others = {(node, each) for node, keys in known_keys(vault).items() for each in keys if node != KEEPER}
        for node, _ in sorted(others - {(key.node, key.public)}):
            raise errors.StoreUnconditional(
                f"the store at {vault.store.address} has no conditional put, and another host adds to it as {node}",
                remedy="copy the vault to a store that has (`kumodr vault copy TO`), and go on there",
            )
    text = json.dumps({"node": key.node, "ed25519": key.public}).encode() + b"\n"
    vault.store.put_if_absent(_name(key.node, key.public), [text])


def known_keys(vault: Vault) -> dict[str, set[str]]:
    """Return the public keys that the vault knows, by node. What is malformed is passed over."""
    found: dict[str, set[str]] = {}
    for name in vault.store.list("nodes/"):
        try:
            document = json.loads(vault.store.get(name, _LARGEST))
            node, key = str(document["node"]), str(document["ed25519"])
        except (ValueError, KeyError, TypeError, RecursionError, errors.ObjectDamaged, errors.ObjectMissing):
            continue
        if name == _name(node, key):
            found.setdefault(node, set()).add(key)
    return found


def why_not_trusted(
    node: str, key: str, known: Mapping[str, set[str]], pins: Mapping[str, frozenset[str]]
) -> errors.KumodrError | None:
    """Given who signed, the vault's own list and the identity file's pins, return why the signature does not count.

    A pinned node must use a pinned key: the vault's list is only as trustworthy as who can write to the vault.
    """
    if node in pins and key not in pins[node]:
        return errors.ManifestForged(
            f"a point of {node} is signed by key {key[:16]}…, which the identity file does not name",
            remedy=f"if that host was rebuilt, add the line `# kumodr node {node} {key}` to the identity file; "
            "otherwise someone else wrote it",
        )
    if node not in pins and key not in known.get(node, set()):
        return errors.ManifestForged(f"a point of {node} is signed by key {key[:16]}…, which the vault does not know")
    return None


def _name(node: str, key: str) -> str:
    return f"nodes/{node}/{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
