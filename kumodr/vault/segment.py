"""One segment of the stream: what changed in the spool and the logs since the segment before, sealed and signed.

An object is a line of JSON (the head), a line with its signature, and the sealed content. The head is clear, so that
freshness can be checked without a key; it carries the hash of the sealed bytes and of the head before it, so that the
signed heads are a chain: a gap, a swap or a fork shows. `docs/vault-format.md` is the specification.

Changes are final and absolute: of each key the last put or delete. Applying segments in order gives the same spool
however often a run of them is repeated from its beginning, which is what makes resuming after a crash simple.
"""

import hashlib
import json
import struct
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kumodr import errors
from kumodr.clock import text_of_time, time_of_text
from kumodr.source import Facts
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import FORMAT
from kumodr.vault.seal import seal, unseal
from kumodr.vault.signature import check_signature

LARGEST = 1 << 30
"""Bytes of a segment's object, and of its plain content."""

LARGEST_HEAD = 1 << 16
DELETED = 0xFFFFFFFF
ID = 16
"""Bytes of an id, which is the key of every message."""

_PAIR = struct.Struct("<II")

Changes = Mapping[bytes, bytes | None]
"""Key → value of the last put, or None where the last operation was a delete."""


@dataclass(frozen=True)
class LogPiece:
    """Bytes of a delivery log from an offset on. `path` is that of the component `logs`: `1-kumomta/20260804-…`."""

    path: str
    offset: int
    data: bytes
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class Content:
    """What a segment holds: changes of both halves, bytes that the logs grew by."""

    meta: Changes = field(default_factory=dict[bytes, bytes | None])
    data: Changes = field(default_factory=dict[bytes, bytes | None])
    logs: tuple[LogPiece, ...] = ()


@dataclass(frozen=True)
class PackedChanges:
    """Changes of one half as they lie in a segment: `gone` are the ids that were deleted last, 16 bytes each, joined in
    ascending order; `others` are all other changes, the puts. Where both have a key, the put counts.
    """

    gone: bytes
    others: Changes

    def unpacked(self) -> dict[bytes, bytes | None]:
        """Return them as one mapping."""
        keys = struct.unpack(f"{ID}s" * (len(self.gone) // ID), self.gone)
        return dict.fromkeys(keys) | dict(self.others)


@dataclass(frozen=True)
class PackedContent:
    """What a segment holds, with deletes in bulk: a day of a busy site has millions of them."""

    meta: PackedChanges
    data: PackedChanges
    logs: tuple[LogPiece, ...]

    def unpacked(self) -> Content:
        """Return it as a content."""
        return Content(self.meta.unpacked(), self.data.unpacked(), self.logs)


@dataclass(frozen=True)
class Head:
    """The clear part. A segment stands for numbers `first` to `last` of its epoch: one, or more where it is a roll-up.

    `taken` is when reading the spool began: what was acknowledged before is in this segment or an earlier one.
    `partial` means that the state after it is none to restore: the rest of the same moment is in the next one.
    `previous` is the hash of the head of number `first - 1`, None for the first of an epoch; `hash` is what the next
    segment calls previous: the head's own, or, for a roll-up, that of the last segment in it.
    """

    node: str
    epoch: int
    first: int
    last: int
    taken: datetime
    previous: str | None
    partial: bool
    facts: Facts
    plain_size: int
    sealed_size: int
    sealed_sha256: str
    signed_by: str
    hash: str

    @property
    def is_rollup(self) -> bool:
        """Whether it repeats several segments as one."""
        return self.first != self.last


@dataclass(frozen=True)
class Draft:
    """What a writer decides of a segment; for a roll-up also the `hash` of the last segment that it repeats."""

    epoch: int
    first: int
    last: int
    taken: datetime
    previous: str | None
    partial: bool = False
    facts: Facts = field(default_factory=dict[str, Any])
    hash: str | None = None


@dataclass(frozen=True)
class SealedSegment:
    """A segment ready to be stored: its object's name, its bytes in pieces, and the hash that the next one needs."""

    name: str
    pieces: Sequence[bytes]
    size: int
    hash: str


def name_of(node: str, epoch: int, first: int, last: int) -> str:
    """Given what a segment stands for, return its object's name."""
    if first == last:
        return f"{prefix_of(node, epoch)}{first:010d}.seg"
    return f"{prefix_of(node, epoch)}rollup/{first:010d}-{last:010d}.seg"


def prefix_of(node: str, epoch: int | None = None) -> str:
    """Given a node and an epoch (None: all), return the prefix of the names of its segments."""
    return f"stream/{node}/" if epoch is None else f"stream/{node}/{epoch:08d}/"


def sealed(draft: Draft, content: Content, key: NodeKey, vault_id: str, recipients: Sequence[Any]) -> SealedSegment:
    """Given a draft, its content, the node's key and the vault's recipients, seal and sign it."""
    plain = b"".join(encoded(content))
    body = seal(plain, recipients)
    digest = hashlib.sha256()
    for piece in body.pieces:
        digest.update(piece)
    document = {
        "format": FORMAT,
        "vault": vault_id,
        "node": key.node,
        "epoch": draft.epoch,
        "first": draft.first,
        "last": draft.last,
        "taken": text_of_time(draft.taken),
        "previous": draft.previous,
        "partial": draft.partial,
        "facts": dict(draft.facts),
        "plain": len(plain),
        "size": body.size,
        "sha256": digest.hexdigest(),
        **({"hash": draft.hash} if draft.first != draft.last else {}),
    }
    head = json.dumps(document).encode() + b"\n"
    signature = {"key": key.public, "ed25519": b64encode(key.sign(head)).decode()}
    lines = head + json.dumps(signature).encode() + b"\n"
    return SealedSegment(
        name=name_of(key.node, draft.epoch, draft.first, draft.last),
        pieces=(lines, *body.pieces),
        size=len(lines) + body.size,
        hash=draft.hash or hashlib.sha256(head).hexdigest(),
    )


def head_of(data: bytes, name: str, vault_id: str) -> Head:
    """Given a segment's object (or its beginning), its name and the vault's id, return the head; its signature is
    that of the key it names, and it is what its name says. Whether the key counts is for the caller (`vault/nodes.py`).

    Raise ManifestForged, or VaultFormatUnknown.
    """
    try:
        end = data.index(b"\n", 0, LARGEST_HEAD) + 1
        head, signature = data[:end], json.loads(data[end : data.index(b"\n", end, end + LARGEST_HEAD)])
        signed_by = str(signature["key"])
        check_signature(head, signed_by, b64decode(signature["ed25519"], validate=True))
        document = json.loads(head)
        if document["format"] != FORMAT:
            raise errors.VaultFormatUnknown(f"{name} has format {str(document['format'])[:20]}")
        found = _head(document, signed_by, hashlib.sha256(head).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise errors.ManifestForged(f"{name} is damaged or was changed") from None
    if name != name_of(found.node, found.epoch, found.first, found.last) or document["vault"] != vault_id:
        raise errors.ManifestForged(f"{name} holds something else than its name says")
    return found


def body_at(data: bytes) -> int:
    """Given a segment's object (or its beginning), return where its sealed content begins, 0 where it ends before."""
    return data.find(b"\n", data.find(b"\n", 0, LARGEST_HEAD) + 1, 2 * LARGEST_HEAD) + 1


def content_of(data: bytes, head: Head, secrets: Sequence[Any]) -> Content:
    """Given a segment's whole object, its head and the identities, return the content.

    Raise ObjectDamaged or WrongKey, naming the object.
    """
    return packed_content_of(data, head, secrets).unpacked()


def packed_content_of(data: bytes, head: Head, secrets: Sequence[Any]) -> PackedContent:
    """As `content_of`, but with the deletes in bulk."""
    name = name_of(head.node, head.epoch, head.first, head.last)
    body = data[body_at(data) :]
    if len(body) != head.sealed_size or hashlib.sha256(body).hexdigest() != head.sealed_sha256:
        raise errors.ObjectDamaged(f"object {name} is damaged")
    plain = unseal(body, secrets, head.plain_size, name)
    try:
        return decoded(plain)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, struct.error):
        raise errors.ObjectDamaged(f"object {name} is damaged: its content is malformed") from None


def encoded(content: Content) -> list[bytes]:
    """Given a content, return its plain bytes in pieces: a line of JSON with the parts' lengths, then the parts."""
    parts: list[tuple[str, list[bytes]]] = []
    for half, changes in (("meta", content.meta), ("data", content.data)):
        gone = sorted(key for key, value in changes.items() if value is None and len(key) == ID)
        others = {key: value for key, value in changes.items() if value is not None or len(key) != ID}
        sizes = array("I")
        for key, value in others.items():
            sizes.append(len(key))
            sizes.append(DELETED if value is None else len(value))
        if sys.byteorder == "big":
            sizes.byteswap()
        parts.append((f"{half}.gone", gone))
        parts.append((f"{half}.sizes", [sizes.tobytes()]))
        parts.append((f"{half}.keys", list(others)))
        parts.append((f"{half}.values", [value for value in others.values() if value is not None]))
    listed = [[each.path, each.offset, len(each.data), each.mode, each.mtime_ns] for each in content.logs]
    parts.append(("logs.list", [json.dumps(listed).encode()]))
    parts.append(("logs.bytes", [each.data for each in content.logs]))
    line = json.dumps([[name, sum(map(len, pieces))] for name, pieces in parts]).encode() + b"\n"
    return [line, *(piece for _, pieces in parts for piece in pieces)]


def decoded(plain: bytes) -> PackedContent:
    """Given plain bytes, return the content. Raise ValueError, KeyError, TypeError, IndexError or struct.error."""
    at = plain.index(b"\n") + 1
    parts: dict[str, tuple[int, int]] = {}
    for name, length in json.loads(plain[:at]):
        if type(length) is not int or length < 0 or type(name) is not str or name in parts:
            raise ValueError("a part's length")
        parts[name] = (at, length)
        at += length
    if at != len(plain):
        raise ValueError("the parts are not the whole")
    logs: list[LogPiece] = []
    start, length = parts["logs.list"]
    at, size = parts["logs.bytes"]
    for path, offset, count, mode, mtime_ns in json.loads(plain[start : start + length]):
        if type(path) is not str or any(type(each) is not int for each in (offset, count, mode, mtime_ns)):
            raise ValueError("a piece of a log")
        if min(offset, count, mode) < 0 or mode > 0o777 or count > size or max(offset, abs(mtime_ns)) >= 1 << 63:
            raise ValueError("a piece of a log")
        logs.append(LogPiece(path, offset, plain[at : at + count], mode, mtime_ns))
        at, size = at + count, size - count
    if size:
        raise ValueError("the pieces of logs are not the whole")
    return PackedContent(_changes(plain, parts, "meta"), _changes(plain, parts, "data"), tuple(logs))


def _changes(plain: bytes, parts: Mapping[str, tuple[int, int]], half: str) -> PackedChanges:
    gone_at, gone = parts[f"{half}.gone"]
    if gone % ID:
        raise ValueError("the deletes are no ids")
    start, length = parts[f"{half}.sizes"]
    key_at, keys = parts[f"{half}.keys"]
    value_at, values = parts[f"{half}.values"]
    key_end, value_end = key_at + keys, value_at + values
    found: dict[bytes, bytes | None] = {}
    for key_size, value_size in _PAIR.iter_unpack(memoryview(plain)[start : start + length]):
        key = plain[key_at : key_at + key_size]
        key_at += key_size
        if value_size == DELETED:
            found[key] = None
        else:
            found[key] = plain[value_at : value_at + value_size]
            value_at += value_size
    if (key_at, value_at) != (key_end, value_end):
        raise ValueError("the keys and values are not the whole")
    return PackedChanges(plain[gone_at : gone_at + gone], found)


def _head(document: dict[str, Any], signed_by: str, digest: str) -> Head:
    epoch, first, last = (document[each] for each in ("epoch", "first", "last"))
    plain, size = document["plain"], document["size"]
    if any(type(each) is not int or each < 0 for each in (epoch, first, last, plain, size)) or not 0 < first <= last:
        raise ValueError("a number")
    if max(plain, size) > LARGEST or not isinstance(document["previous"], str | None):
        raise ValueError("a size")
    if type(document["partial"]) is not bool:
        raise ValueError("whether it is partial")
    return Head(
        node=str(document["node"]),
        epoch=epoch,
        first=first,
        last=last,
        taken=time_of_text(document["taken"]),
        previous=document["previous"],
        partial=document["partial"],
        facts=dict(document["facts"]),
        plain_size=plain,
        sealed_size=size,
        sealed_sha256=str(document["sha256"]),
        signed_by=signed_by,
        hash=digest if first == last else str(document["hash"]),
    )
