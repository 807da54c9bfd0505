"""The vault's facts, as read from its clear manifests. `docs/vault-format.md` is the specification."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class StoredObject:
    """One sealed object: its name, its sealed size in bytes, the CRC-32C of the sealed bytes.

    `sha256` of the sealed bytes is set for the index only: it ties the index, and so all content, to the signature.
    """

    name: str
    size: int
    crc32c: int
    sha256: str | None = None


@dataclass(frozen=True)
class Section:
    """One component inside a point. Its content is one tar stream: the opened objects, in order, joined.

    `index` are the objects of the sealed list of files, in order. `size` is of the files, in bytes.
    """

    component: str
    objects: tuple[StoredObject, ...]
    index: tuple[StoredObject, ...]
    files: int
    size: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class StreamJoin:
    """Where a base meets the stream: segments of `epoch` from number `begin` on go on top of it, at least to `whole`.

    Everything before `begin` was in the spool before the base was begun. `whole` is the first number whose reading
    began after the base was held: a state with fewer of them would put back what the base already knows as gone.
    """

    epoch: int
    begin: int
    whole: int


@dataclass(frozen=True)
class Point:
    """One recovery point: what one backup run stored, whole or not at all.

    `failures` names the components that could not be captured in that run, each with its sentence. `marks` is the
    number of the newest mark that the run honoured: no object on it or an earlier one is used (`vault/marks.py`).
    """

    id: str
    node: str
    sequence: int
    taken: datetime
    sections: tuple[Section, ...]
    failures: Mapping[str, str]
    previous: str | None
    signed_by: str
    sha256: str
    stream: StreamJoin | None = None
    marks: int = 0

    def section(self, component: str) -> Section | None:
        """Return that component's section, or None where the point has none."""
        return next((section for section in self.sections if section.component == component), None)
