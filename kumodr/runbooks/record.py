"""The timeline in the vault: `runs/SITE/RUN/NUMBER.json`, put once, so that the record survives the host.

What says when and how is clear and signed; what may name mail, people or paths (text, facts, who) is sealed. An entry
has the same number whenever the run is gone through again, so putting it again changes nothing, and what a killed
command had not put yet is put by the next. A vault that does not answer never holds up a run: a thread of its own puts,
and what could not be put is said at the end.
"""

import hashlib
import json
import queue
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kumodr import errors
from kumodr.runbooks.entry import Entry, entry_of
from kumodr.vault.keys import Identities, NodeKey
from kumodr.vault.nodes import known_keys, register, why_not_trusted
from kumodr.vault.open import FORMAT, Vault
from kumodr.vault.recipients import sealed_to
from kumodr.vault.seal import seal, unseal
from kumodr.vault.signature import check_signature

PREFIX = "runs/"
_LARGEST = 1 << 20
_SEALED = ("text", "facts", "warnings", "by")
_PATIENCE = 30.0
_NOT_GOOD = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Head:
    """What is clear of one entry, and whether who signed it is trusted (None), or why not."""

    run: str
    site: str
    number: int
    step: str
    phase: str
    attempt: int
    status: str
    began: str
    seconds: float
    name: str
    distrust: errors.KumodrError | None


class Recorder:
    """Puts the entries of one run into the vault, beside the run. `close` waits, at most half a minute."""

    def __init__(self, vault: Vault, key: NodeKey, run: str) -> None:
        self._vault, self._key, self._run = vault, key, run
        self._todo: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._sealed: Vault | None = None
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._work, name="kumodr-record", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Given an entry, have it put. Returns at once."""
        self._todo.put(entry)

    def close(self, patience: float = _PATIENCE) -> str | None:
        """Wait until everything is put; return why something is not, or None."""
        self._todo.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            return f"the vault took no more of the record for {patience:g} s"
        return self._problem

    def _work(self) -> None:
        failed: list[Entry] = []
        while (entry := self._todo.get()) is not None:
            if self._not_put(entry) is not None:
                failed.append(entry)
        problems = [problem for entry in failed if (problem := self._not_put(entry)) is not None]
        self._problem = problems[0] if problems else None

    def _not_put(self, entry: Entry) -> str | None:
        """Put an entry; return why it could not be, or None."""
        try:
            if self._sealed is None:
                register(self._vault, self._key)
                self._sealed = sealed_to(self._vault, self._key)
            self._sealed.store.put_if_absent(*packed(self._sealed, self._key, self._run, entry))
        except errors.KumodrError as error:
            return str(error)
        except Exception as bug:  # noqa: BLE001 — the record never stops a run
            return f"kumodr has a bug: {bug!r}"
        return None


def packed(vault: Vault, key: NodeKey, run: str, entry: Entry) -> tuple[str, list[Any]]:
    """Given an entry of a run, return the name and the bytes, in pieces, of the object that holds it."""
    document = entry.document()
    plain = json.dumps({name: document.pop(name) for name in _SEALED}).encode()
    pieces = [bytes(piece) for piece in seal(plain, vault.public_keys()).pieces]
    head = {
        "format": FORMAT, "vault": vault.id, "node": key.node, "run": run, **document, "plain": len(plain),
        "sha256": hashlib.sha256(b"".join(pieces)).hexdigest(),
    }  # fmt: skip
    line = json.dumps(head).encode() + b"\n"
    signature = {"key": key.public, "ed25519": b64encode(key.sign(line)).decode()}
    return _name(key.node, run, entry.number), [line, json.dumps(signature).encode() + b"\n", *pieces]


def heads(vault: Vault, pins: Mapping[str, frozenset[str]], run: str | None = None) -> list[Head]:
    """Given a vault, return what is clear of the entries in it, of one run or of all, in order. Needs no key.

    What is malformed, or lies under a name that it does not have, is passed over.
    """
    known = known_keys(vault)
    found: list[Head] = []
    for name in vault.store.list(PREFIX):
        if run is not None and f"/{run}/" not in name:
            continue
        try:
            found.append(_head(name, vault, known, pins)[0])
        except (*_NOT_GOOD, errors.ObjectMissing, errors.ObjectDamaged):
            continue
    return sorted(found, key=lambda head: (head.run, head.number))


def entries(vault: Vault, identities: Identities, run: str) -> list[Entry]:
    """Given a vault and the identity that opens it, return the entries of a run whose signature counts, in order.

    Raise WrongKey, ObjectDamaged.
    """
    known = known_keys(vault)
    found: list[Entry] = []
    for head in heads(vault, identities.pins, run):
        if head.distrust is not None:
            continue
        _, document, sealed = _head(head.name, vault, known, identities.pins)
        plain = unseal(sealed, identities.secrets, int(document["plain"]), head.name)
        fields = {key: document[key] for key in document if key in Entry.__dataclass_fields__}
        try:
            found.append(entry_of(fields | json.loads(plain)))
        except (ValueError, KeyError, TypeError):
            raise errors.ObjectDamaged(f"object {head.name} is damaged") from None
    return found


def _head(
    name: str, vault: Vault, known: Mapping[str, set[str]], pins: Mapping[str, frozenset[str]]
) -> tuple[Head, dict[str, Any], bytes]:
    data = vault.store.get(name, _LARGEST)
    first = data.index(b"\n") + 1
    second = data.index(b"\n", first) + 1
    document, signature = json.loads(data[:first]), json.loads(data[first:second])
    sealed = data[second:]
    check_signature(data[:first], str(signature["key"]), b64decode(signature["ed25519"], validate=True))
    node, run, number = str(document["node"]), str(document["run"]), int(document["number"])
    if (document["format"], document["vault"]) != (FORMAT, vault.id) or name != _name(node, run, number):
        raise ValueError("another vault's, or another name")
    if hashlib.sha256(sealed).hexdigest() != document["sha256"]:
        raise ValueError("other content")
    head = Head(
        run=run, site=node, number=number, step=str(document["step"]), phase=str(document["phase"]),
        attempt=int(document["attempt"]), status=str(document["status"]), began=str(document["began"]),
        seconds=float(document["seconds"]), name=name,
        distrust=why_not_trusted(node, str(signature["key"]), known, pins),
    )  # fmt: skip
    return head, document, sealed


def _name(site: str, run: str, number: int) -> str:
    return f"{PREFIX}{site}/{run}/{number:08d}.json"
