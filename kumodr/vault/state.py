"""What a node remembers between backups, in its state directory: never needed, only quicker.

`<vault id>.json` is written whole after each committed point: the sections of the last point with their
fingerprints, and for each large file its identity and where it is stored. `<vault id>.journal` gets a line for every
object that the vault acknowledged in a run that is not committed yet, so that an interrupted run is not done again.
Losing the directory costs reading everything once more, no correctness.
"""

import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import write_file
from kumodr.vault.facts import Section, StoredObject


@dataclass(frozen=True)
class Piece:
    """One stored object and what it holds: plain size and BLAKE3 of the plain bytes."""

    stored: StoredObject
    plain_size: int
    blake3: str


@dataclass(frozen=True)
class Remembered:
    """A section of the last point: its fingerprint and the section."""

    fingerprint: str
    section: Section


@dataclass
class State:
    """What is known of one vault. `objects` by name; `files` by path and identity, the pieces of a large file.

    `marks` is the newest mark that it honours: it names no object that was on it or on an earlier one.
    `generation` is that of the recipients that all of it is sealed to, `address` where the vault was: a copy of it has
    the same id, and may not have everything yet.
    """

    point: str | None = None
    sections: dict[str, Remembered] = field(default_factory=dict[str, Remembered])
    objects: dict[str, Piece] = field(default_factory=dict[str, Piece])
    files: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    marks: int = 0
    generation: int = 0
    address: str = ""


@contextmanager
def locked(directory: Path, what: str = "backup") -> Generator[None]:
    """Given the state directory and what is begun, hold its lock. Raise AnotherRun where another process holds it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = "lock" if what == "backup" else f"{what}.lock"
    descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise errors.AnotherRun(f"another {what} (process {holder or 'unknown'}) is running here") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def load(directory: Path, vault_id: str) -> State:
    """Given the state directory, return what is remembered of the vault; whatever cannot be read is forgotten."""
    state = State()
    try:
        document = json.loads((directory / f"{vault_id}.json").read_bytes())
        objects = {name: _piece(name, values) for name, values in document["objects"].items()}
        state = State(
            point=document["point"],
            sections={name: _remembered(name, each, objects) for name, each in document["sections"].items()},
            objects=objects,
            files={key: tuple(names) for key, names in document["files"].items()},
            marks=int(document.get("marks", 0)),
            generation=int(document.get("generation", 0)),
            address=str(document.get("address", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        state = State()
    for line in _journal_lines(directory, vault_id):
        try:
            name, *values = json.loads(line)
            state.objects[name] = _piece(name, values)
        except (ValueError, TypeError):
            continue
    return state


def save(directory: Path, vault_id: str, state: State) -> None:
    """Given what is to be remembered, write it whole, then drop the journal: all that it holds is in the state."""
    document = {
        "point": state.point,
        "sections": {
            name: {
                "fingerprint": each.fingerprint,
                "files": each.section.files,
                "size": each.section.size,
                "facts": dict(each.section.facts),
                "objects": [stored.name for stored in each.section.objects],
                "index": [[stored.name, stored.size, stored.crc32c, stored.sha256] for stored in each.section.index],
            }
            for name, each in state.sections.items()
        },
        "objects": {name: _values(piece) for name, piece in state.objects.items()},
        "files": state.files,
        "marks": state.marks,
        "generation": state.generation,
        "address": state.address,
    }
    write_file(directory / f"{vault_id}.json", json.dumps(document, separators=(",", ":")).encode())
    (directory / f"{vault_id}.journal").unlink(missing_ok=True)


def remember_object(directory: Path, vault_id: str, piece: Piece) -> None:
    """Given an object that the vault has acknowledged, add it to the journal. One write, so threads do not mix."""
    line = json.dumps([piece.stored.name, *_values(piece)]).encode() + b"\n"
    descriptor = os.open(
        directory / f"{vault_id}.journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _journal_lines(directory: Path, vault_id: str) -> list[bytes]:
    try:
        return (directory / f"{vault_id}.journal").read_bytes().splitlines()
    except OSError:
        return []


def _values(piece: Piece) -> list[Any]:
    return [piece.stored.size, piece.stored.crc32c, piece.plain_size, piece.blake3]


def _piece(name: str, values: list[Any]) -> Piece:
    size, crc32c, plain_size, digest = values
    return Piece(StoredObject(name, int(size), int(crc32c)), int(plain_size), str(digest))


def _remembered(component: str, document: dict[str, Any], objects: dict[str, Piece]) -> Remembered:
    section = Section(
        component=component,
        objects=tuple(objects[name].stored for name in document["objects"]),
        index=tuple(StoredObject(*each) for each in document["index"]),
        files=document["files"],
        size=document["size"],
        facts=document["facts"],
    )
    return Remembered(document["fingerprint"], section)
