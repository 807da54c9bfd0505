"""The vault's facts, as read from its clear manifests. `docs/vault-format.md` is the specification."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class StoredObject:
    """One sealed object: its name below `objects/`, its sealed size in bytes and CRC-32C of the sealed bytes."""

    name: str
    size: int
    crc32c: int


@dataclass(frozen=True)
class Section:
    """One component inside a point. Its content is one tar stream: the opened objects, in order, joined.

    `index` is the sealed list of files; `index_sha256` is of its sealed bytes, so that the signature covers it.
    """

    component: str
    objects: tuple[StoredObject, ...]
    index: StoredObject
    index_sha256: str
    files: int
    size: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One recovery point: what one backup run stored, whole or not at all.

    `failures` names the components that could not be captured in that run, each with its sentence.
    """

    id: str
    node: str
    sequence: int
    taken: datetime
    sections: tuple[Section, ...]
    failures: Mapping[str, str]
    signed_by: str
    sha256: str

    def section(self, component: str) -> Section | None:
        """Return that component's section, or None where the point has none."""
        return next((section for section in self.sections if section.component == component), None)
