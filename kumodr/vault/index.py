"""The sealed index of a section: JSON lines that say which file lies where in the tar stream.

Lines, in the order of the stream:
  ["o", object name, plain size, BLAKE3 of the plain bytes]
  ["f", path, kind, mode, uid, gid, mtime_ns, size, offset of the content in the object above, link target]
  ["s", sealed facts]                                   once, last
A file that does not fit in one object fills the objects that follow its first one, and shares them with no other file.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kumodr import errors
from kumodr.vault.facts import Section
from kumodr.vault.open import Vault
from kumodr.vault.seal import LARGEST_PLAIN, LARGEST_SEALED, checksum_of, unseal
from kumodr.vault.tarstream import Entry, header, padding


@dataclass(frozen=True)
class Placed:
    """A file and where its content begins in its first object."""

    entry: Entry
    offset: int


@dataclass(frozen=True)
class ObjectPlan:
    """One object of the stream: what it must hold, and the files that begin in it.

    Where `rest_of` is set the object begins with the content of that file, from `rest_at` on.
    """

    name: str
    plain_size: int
    blake3: str
    files: tuple[Placed, ...]
    rest_of: Placed | None
    rest_at: int


def line(values: Sequence[Any]) -> bytes:
    """Given the values of a line, return its bytes."""
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def file_line(entry: Entry, offset: int) -> bytes:
    """Given an entry and where its content begins, return its line."""
    return line(
        [
            "f",
            entry.path,
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.size,
            offset,
            entry.target,
        ]
    )


def read_lines(vault: Vault, section: Section, secrets: Sequence[Any]) -> Iterator[list[Any]]:
    """Given a section, yield each line of its index, in bounded memory. Raise ObjectMissing, ObjectDamaged, WrongKey.

    The sealed bytes must be those that were signed: an index that was swapped is refused before it is opened.
    """
    for stored in section.index:
        sealed = vault.store.get(stored.name, LARGEST_SEALED)
        if checksum_of(sealed) != stored.crc32c or hashlib.sha256(sealed).hexdigest() != stored.sha256:
            raise errors.ObjectDamaged(f"index {stored.name} of {section.component} is damaged or was swapped")
        for text in unseal(sealed, secrets, None, stored.name).splitlines():
            try:
                values = json.loads(text)
                if not isinstance(values, list) or not values:
                    raise ValueError
            except (ValueError, RecursionError):
                raise errors.ObjectDamaged(f"index {stored.name} of {section.component} is malformed") from None
            yield values


def read_plan(vault: Vault, section: Section, secrets: Sequence[Any]) -> Iterator[ObjectPlan]:
    """Given a section, yield each object of its stream with the files that it holds, in order.

    Raise as `read_lines` does, and ObjectDamaged where the index contradicts itself or the signed object list.
    """
    names = iter(section.objects)
    current: tuple[str, int, str] | None = None
    files: list[Placed] = []
    spanning: Placed | None = None
    spanned = 0
    try:
        for values in read_lines(vault, section, secrets):
            if values[0] == "f":
                if current is None:
                    raise ValueError("a file before the first object")
                files.append(_placed(values))
            elif values[0] == "o":
                if current is not None:
                    plan, spanning, spanned = _finished(current, files, spanning, spanned)
                    yield plan
                _, name, plain_size, digest = values
                stored = next(names, None)
                if stored is None or stored.name != name or not 0 <= plain_size <= LARGEST_PLAIN:
                    raise ValueError("another list of objects than the manifest")
                current, files = (name, plain_size, str(digest)), []
        if current is not None:
            plan, spanning, spanned = _finished(current, files, spanning, spanned)
            yield plan
        if next(names, None) is not None or spanning is not None:
            raise ValueError("it ends early")
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise errors.ObjectDamaged(f"the index of {section.component} is malformed: {error}") from None


def sealed_facts(vault: Vault, section: Section, secrets: Sequence[Any]) -> dict[str, Any]:
    """Given a section, return what its capture sealed beside the files."""
    last: list[Any] = []
    for values in read_lines(vault, section, secrets):
        last = values
    return last[1] if last and last[0] == "s" else {}


def _placed(values: list[Any]) -> Placed:
    _, path, kind, mode, uid, gid, mtime_ns, size, offset, target = values
    entry = Entry(path, kind, mode, uid, gid, mtime_ns, size, target)
    numbers = (mode, uid, gid, size, offset)
    if kind not in ("file", "directory", "symlink") or any(type(each) is not int or each < 0 for each in numbers):
        raise ValueError("a file's line")
    if type(path) is not str or type(target) is not str or type(mtime_ns) is not int or mode > 0o7777:
        raise ValueError("a file's line")
    return Placed(entry, offset)


def _finished(
    current: tuple[str, int, str], files: list[Placed], spanning: Placed | None, spanned: int
) -> tuple[ObjectPlan, Placed | None, int]:
    """Return the object's plan and the file, if any, whose content goes on behind it, with how much of it is done."""
    name, plain_size, digest = current
    plan = ObjectPlan(name, plain_size, digest, tuple(files), spanning, spanned)
    if spanning is not None:
        whole = spanning.entry.size + len(padding(spanning.entry.size))
        if files or plain_size > whole - spanned:
            raise ValueError("a large file shares an object")
        done = spanned + plain_size
        return plan, (None if done == whole else spanning), done
    for placed in files:
        if placed.entry.kind == "file" and placed.offset + placed.entry.size > plain_size:
            if len(files) > 1 or placed.offset > plain_size:
                raise ValueError("a file leaves its object")
            return plan, placed, plain_size - placed.offset
    return plan, None, 0


def header_problem(plan: ObjectPlan, plain: bytes) -> str | None:
    """Given an object's plan and its plain bytes, return how the tar stream contradicts the index, or None."""
    for placed in plan.files:
        expected = header(placed.entry)
        if plain[max(0, placed.offset - len(expected)) : placed.offset] != expected:
            return f"the tar header of {placed.entry.path!r} is not what the index says"
    return None
