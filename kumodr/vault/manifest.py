"""The clear manifest of a point: JSON with one object per line, and its signature on the last line.

Laid out by lines so that a shell can take the object names out with `awk`; signed so that who can write to the vault
but does not have the node's key cannot change or invent a point unseen.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kumodr import __version__, errors
from kumodr.clock import text_of_time, time_of_text
from kumodr.vault.facts import Point, Section, StoredObject, StreamJoin
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import FORMAT
from kumodr.vault.signature import check_signature

LARGEST = 64 << 20


def name_of(node: str, sequence: int) -> str:
    """Given node and number, return the manifest's name in the vault."""
    return f"points/{node}/{sequence:08d}.json"


def newest_of(names: Iterable[str], node: str) -> int:
    """Given names of objects and a node, return the highest number of a manifest of it among them, 0 without one."""
    numbers = (name.rpartition("/")[2].removesuffix(".json") for name in names if name.startswith(f"points/{node}/"))
    return max((int(each) for each in numbers if each.isascii() and each.isdigit()), default=0)


def render(point: Point, vault_id: str, key: NodeKey) -> bytes:
    """Given a point (its `sha256` and `signed_by` are not used) and the node's key, return the manifest's bytes."""
    head = {
        "format": FORMAT,
        "vault": vault_id,
        "point": point.id,
        "node": point.node,
        "sequence": point.sequence,
        "taken": text_of_time(point.taken),
        "kind": "base",
        "previous": point.previous,
        "written_by": f"kumodr {__version__}",
        "failures": dict(point.failures),
        **({"stream": asdict(point.stream)} if point.stream else {}),
        **({"marks": point.marks} if point.marks else {}),
    }
    lines = [json.dumps(head)[:-1] + ', "sections": [']
    for number, section in enumerate(point.sections):
        facts = {"component": section.component, "files": section.files, "size": section.size}
        lines.append(json.dumps({**facts, "facts": dict(section.facts)})[:-1] + ', "index": [')
        lines += _object_lines(section.index)
        lines.append('], "objects": [')
        lines += _object_lines(section.objects)
        lines.append("]}" + ("," if number + 1 < len(point.sections) else ""))
    lines.append("]}")
    body = "\n".join(lines).encode() + b"\n"
    signature = {"key": key.public, "ed25519": b64encode(key.sign(body)).decode()}
    return body + json.dumps(signature).encode() + b"\n"


def parse(text: bytes, name: str, vault_id: str) -> Point:
    """Given a manifest's bytes, its name and the vault's id, return the point; its signature must be that of the key
    it names, and it must be what its name says.

    Raise ManifestForged, VaultFormatUnknown, or ManifestUnsafe for content that no kumodr writes.
    """
    body, _, last = text.rstrip(b"\n").rpartition(b"\n")
    body += b"\n"
    try:
        signature = json.loads(last)
        signed_by = str(signature["key"])
        check_signature(body, signed_by, b64decode(signature["ed25519"], validate=True))
        document = json.loads(body)
        if document["format"] != FORMAT:
            raise errors.VaultFormatUnknown(f"{name} has format {str(document['format'])[:20]}")
        point = Point(
            id=str(document["point"]),
            node=str(document["node"]),
            sequence=int(document["sequence"]),
            taken=time_of_text(document["taken"]),
            sections=tuple(_section(each) for each in document["sections"]),
            failures={str(component): str(text) for component, text in document["failures"].items()},
            previous=document["previous"],
            signed_by=signed_by,
            sha256=hashlib.sha256(text).hexdigest(),
            stream=_join(document.get("stream")),
            marks=int(document.get("marks", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise errors.ManifestForged(f"{name} is damaged or was changed") from None
    if name != name_of(point.node, point.sequence) or point.id != f"{point.node}-{point.sequence}":
        raise errors.ManifestForged(f"{name} holds another point, {point.id[:80]}")
    if document["vault"] != vault_id:
        raise errors.ManifestForged(f"{name} belongs to another vault")
    return point


def _object_lines(objects: Iterable[StoredObject]) -> list[str]:
    lines = [
        json.dumps(
            {"object": each.name, "size": each.size, "crc32c": each.crc32c}
            | ({"sha256": each.sha256} if each.sha256 else {})
        )
        for each in objects
    ]
    return [line + "," for line in lines[:-1]] + lines[-1:]


def _join(document: dict[str, Any] | None) -> StreamJoin | None:
    return None if document is None else StreamJoin(*(int(document[each]) for each in ("epoch", "begin", "whole")))


def _section(document: dict[str, Any]) -> Section:
    component = str(document["component"])
    if not component.isidentifier():
        raise ValueError("a component's name")
    return Section(
        component=component,
        objects=tuple(_object(each) for each in document["objects"]),
        index=tuple(_object(each) for each in document["index"]),
        files=int(document["files"]),
        size=int(document["size"]),
        facts=dict(document["facts"]),
    )


def _object(document: dict[str, Any]) -> StoredObject:
    name, size = str(document["object"]), int(document["size"])
    if not name.startswith("objects/") or ".." in name or size < 0:
        raise ValueError("an object's name")
    return StoredObject(name, size, int(document["crc32c"]), document.get("sha256"))
