"""Marks: what prune means to delete, said before it is done, so that no backup ever relies on it.

The race: a backup decides to use an object that is in the vault already, prune deletes it, the backup commits a point
without it. Clocks and locks cannot exclude it, for a backup may be suspended at any place for any time. This does:

1. Nothing is deleted that was not on a mark, `marks/NUMBER.json`, put once, numbered without end.
2. A backup notes the newest mark when it begins, uses no object that is on this or an earlier one (content that comes
   back is stored anew under another name), and writes the mark's number into its manifest.
3. Along a node's chain these numbers never fall: who writes a manifest has read the one before it, whose hash is in it,
   and gives up where that one has a higher number than its own (`vault/backup.py`).
4. Prune deletes what is on a mark only when the newest manifest of every node has that mark's number or a higher one.
   From then on no manifest can appear that uses it, by 2 and 3. Those that are there already are read after that, and
   what any of them needs stays.

A mark must also be older than the grace period by the store's own clock: the time to think better of it. A node that
has stopped for good never agrees; the operator says that it has (`kumodr prune --retired NODE`).
A listing that misses the newest mark makes a backup agree to less, never to more.
"""

import contextlib
import json
from collections.abc import Iterable, Sequence

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.vault.open import FORMAT, Vault
from kumodr.vault.state import State

_PREFIX = "marks/"
_LARGEST = 256 << 20


def name_of(number: int) -> str:
    """Given a mark's number, return its object's name."""
    return f"{_PREFIX}{number:08d}.json"


def number_of(name: str) -> int | None:
    """Given an object's name, return the number of the mark that it is, or None."""
    digits = name.removeprefix(_PREFIX).removesuffix(".json")
    return int(digits) if digits.isascii() and digits.isdigit() and name == name_of(int(digits)) else None


def marks_of(vault: Vault) -> tuple[int, ...]:
    """Given a vault, return the numbers of its marks, ascending."""
    found = (number_of(name) for name in vault.store.list(_PREFIX))
    return tuple(sorted(number for number in found if number))


def read_mark(vault: Vault, number: int) -> frozenset[str]:
    """Given a mark's number, return the names on it. Raise ObjectMissing, ObjectDamaged."""
    name = name_of(number)
    lines = vault.store.get(name, _LARGEST).split(b"\n")
    try:
        head = json.loads(lines[0])
        if head["vault"] != vault.id or head["format"] != FORMAT or head["names"] != len(lines) - 2:
            raise errors.ObjectDamaged(f"object {name} is damaged or of another vault")
        return frozenset(json.loads(line) for line in lines[1:-1])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise errors.ObjectDamaged(f"object {name} is damaged") from None


def read_marks(vault: Vault, numbers: Iterable[int]) -> dict[int, frozenset[str]]:
    """Given numbers, return the names on each mark; one that is gone has done its work and is left out."""
    found: dict[int, frozenset[str]] = {}
    for number in numbers:
        with contextlib.suppress(errors.ObjectMissing):
            found[number] = read_mark(vault, number)
    return found


def put_mark(vault: Vault, names: Iterable[str], clock: Clock) -> int:
    """Given names, put them on a new mark and return its number. Raise AnotherRun where another prune won it."""
    number = max(marks_of(vault), default=0) + 1
    listed = sorted(names)
    head = {"format": FORMAT, "vault": vault.id, "time": text_of_time(clock()), "names": len(listed)}
    lines = [json.dumps(head), *(json.dumps(name) for name in listed)]
    if not vault.store.put_if_absent(name_of(number), ["".join(f"{line}\n" for line in lines).encode()]):
        raise errors.AnotherRun("another prune of this vault is running")
    return number


def honouring(state: State, vault: Vault, marks: Sequence[int]) -> State:
    """Given what a node remembers and the numbers of the vault's marks, return it without what was marked since.

    Where one of the marks since is gone, everything on it is deleted, and nothing is known of it: all is forgotten.
    """
    newest = max(marks, default=0)
    if state.marks == newest:
        return state
    since = range(state.marks + 1, newest + 1)
    found = read_marks(vault, set(since) & set(marks))
    if newest < state.marks or len(found) < len(since):
        return State(marks=newest, generation=state.generation)
    marked = frozenset[str]().union(*found.values())
    sections = {
        name: each
        for name, each in state.sections.items()
        if marked.isdisjoint(stored.name for stored in (*each.section.index, *each.section.objects))
    }
    return State(
        point=state.point,
        sections=sections,
        objects={name: piece for name, piece in state.objects.items() if name not in marked},
        files={key: names for key, names in state.files.items() if marked.isdisjoint(names)},
        marks=newest,
        generation=state.generation,
        address=state.address,
    )
