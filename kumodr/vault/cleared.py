"""What prune took out of a node's chain, on record, so that the rest of the chain still holds together.

`pruned/NODE/NUMBER.json` is one line of JSON and one with a signature, as every signed object. It names runs of
manifests, (first, last, what the first called `previous`, the hash of the last), and components that are gone from
points whose manifest stays. Each record repeats the ones before it. It explains an absence and makes none: a manifest
that is there counts, and so does a component whose index is there, whatever a record says.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.vault.facts import Point
from kumodr.vault.keys import NodeKey
from kumodr.vault.nodes import why_not_trusted
from kumodr.vault.open import FORMAT, Vault
from kumodr.vault.signature import check_signature

PREFIX = "pruned/"
_LARGEST = 64 << 20


@dataclass(frozen=True, order=True)
class Run:
    """Manifests `first` to `last` of a chain: the hash that the first one follows, and the last one's own."""

    first: int
    last: int
    previous: str | None
    sha256: str


@dataclass(frozen=True)
class Cleared:
    """What is gone from one node's chain: runs of manifests, and components by the number of their point.

    `newest` is the number of the newest record, 0 without one.
    """

    runs: tuple[Run, ...] = ()
    sections: Mapping[int, frozenset[str]] = field(default_factory=dict[int, frozenset[str]])
    newest: int = 0
    names: tuple[str, ...] = ()

    def leads(self, sequence: int, sha256: str | None, to: Point) -> bool:
        """Given the end of a chain (0 and None: its beginning), return whether runs lead from there to the point."""
        ahead: dict[tuple[int, str | None], Run] = {}
        for run in self.runs:
            known = ahead.get((run.first, run.previous))
            if run.last < to.sequence and (known is None or known.last < run.last):
                ahead[run.first, run.previous] = run
        while sequence + 1 < to.sequence:
            run = ahead.get((sequence + 1, sha256))
            if run is None:
                return False
            sequence, sha256 = run.last, run.sha256
        return sequence + 1 == to.sequence and sha256 == to.previous


def cleared_by_node(
    vault: Vault, known: Mapping[str, set[str]], pins: Mapping[str, frozenset[str]]
) -> dict[str, Cleared]:
    """Given a vault, the keys that it knows and the identity file's pins, return what records say, by node.

    A record counts where the key that signed it is trusted; for a node that is pinned, who signed must be pinned too.
    """
    found: dict[str, Cleared] = {}
    for name in sorted(vault.store.list(PREFIX)):
        _, _, rest = name.partition("/")
        node, _, file = rest.partition("/")
        before = found.get(node, Cleared())
        digits = file.removesuffix(".json")
        if not digits.isascii() or not digits.isdigit():
            continue
        numbered = replace(before, newest=max(before.newest, int(digits)), names=(*before.names, name))
        found[node] = numbered
        try:
            runs, sections = _read(vault, name, node, known, pins)
        except (errors.ManifestForged, errors.ObjectDamaged, errors.ObjectMissing):
            continue
        merged = dict(numbered.sections)
        for sequence, components in sections.items():
            merged[sequence] = merged.get(sequence, frozenset()) | components
        found[node] = replace(numbered, runs=tuple(sorted({*numbered.runs, *runs}, key=_order)), sections=merged)
    return found


def record_cleared(
    vault: Vault, node: str, cleared: Cleared, points: Sequence[Point], key: NodeKey, clock: Clock
) -> None:
    """Given a node and what is gone or about to go, put the next record; `points` are manifests that are still there.

    Runs that touch become one where nothing of them is there any more. Raise AnotherRun where another prune won.
    """
    there = {point.sequence for point in points}
    body = json.dumps(
        {
            "format": FORMAT,
            "vault": vault.id,
            "node": node,
            "by": key.node,
            "time": text_of_time(clock()),
            "runs": [[run.first, run.last, run.previous, run.sha256] for run in joined(cleared.runs, there)],
            "sections": {str(number): sorted(names) for number, names in sorted(cleared.sections.items())},
        }
    ).encode()
    signature = {"key": key.public, "ed25519": b64encode(key.sign(body + b"\n")).decode()}
    name = f"{PREFIX}{node}/{cleared.newest + 1:08d}.json"
    if not vault.store.put_if_absent(name, [body + b"\n", json.dumps(signature).encode() + b"\n"]):
        raise errors.AnotherRun("another prune of this vault is running")


def joined(runs: Sequence[Run], there: set[int]) -> list[Run]:
    """Given runs and the numbers of manifests that are there, return them with those that touch made one.

    A manifest that is there stays a run of its own: the chain goes through it until it is gone.
    """
    found: list[Run] = []
    for run in sorted(set(runs), key=_order):
        last = found[-1] if found else None
        if last is not None and run.first >= last.first and run.last <= last.last:
            continue
        touches = last is not None and run.first == last.last + 1 and run.previous == last.sha256
        if last is not None and touches and not {last.first, last.last, run.first, run.last} & there:
            found[-1] = Run(last.first, run.last, last.previous, run.sha256)
        else:
            found.append(run)
    return found


def _order(run: Run) -> tuple[int, int, str]:
    return run.first, -run.last, run.sha256


def _read(
    vault: Vault, name: str, node: str, known: Mapping[str, set[str]], pins: Mapping[str, frozenset[str]]
) -> tuple[list[Run], dict[int, frozenset[str]]]:
    text = vault.store.get(name, _LARGEST)
    try:
        end = text.index(b"\n") + 1
        body, signature = json.loads(text[:end]), json.loads(text[end:])
        key, signer = str(signature["key"]), str(body["by"])
        check_signature(text[:end], key, b64decode(signature["ed25519"], validate=True))
        if (body["format"], body["vault"], body["node"]) != (FORMAT, vault.id, node):
            raise ValueError("another vault's or node's")
        if why_not_trusted(signer, key, known, pins) is not None or (node in pins and signer not in pins):
            raise ValueError("not trusted")
        runs = [Run(int(first), int(last), previous, str(sha)) for first, last, previous, sha in body["runs"]]
        sections = {int(number): frozenset(map(str, names)) for number, names in body["sections"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise errors.ManifestForged(f"{name} is damaged, or its signature does not count") from None
    if any(not 0 < run.first <= run.last for run in runs):
        raise errors.ManifestForged(f"{name} is damaged")
    return runs, sections
