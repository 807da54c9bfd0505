"""A second copy: bring another vault up to date with this one. Needs no key; what is missing is copied, nothing else.

The order is that of the writers: objects before the manifests that name them, segments of an epoch by their numbers, a
few at a time, results at the end. So a copy that was interrupted is a vault of an earlier time, and the next run goes
on behind it: only of the last few segments some may be missing, and the stream ends before those.
Each object is checked as it comes: size and CRC-32C, or SHA-256, against the signed manifest that names it; the signed
head of a segment and the hash in it. What is not good is named and not copied, nor is a manifest with such an object.
Marks are not copied: they are about the vault that nodes add to.
A copy keeps what was pruned here; clear it with `kumodr prune --vault COPY` while no copying runs.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kumodr import errors
from kumodr.plan.model import VaultPlan
from kumodr.source import Progress
from kumodr.vault import manifest
from kumodr.vault.facts import StoredObject
from kumodr.vault.open import MARKER, Vault, marker_text, opened_at, proved, read_marker
from kumodr.vault.points import survey
from kumodr.vault.seal import LARGEST_SEALED, checksum_of
from kumodr.vault.segment import LARGEST, LARGEST_HEAD, body_at, head_of
from kumodr.vault.store import Store, open_store
from kumodr.vault.stream import NOT_GOOD, part_of_name

_WORKERS = 8
_MOST_AT_ONCE = 64
_HELD = 32 << 20
"""Bytes of segments that are held at once; one that is larger is held alone."""

_LARGEST_SMALL = 64 << 20


@dataclass(frozen=True)
class Copied:
    """What a run copied: objects, their bytes, the points that it completed, and what is wrong, a sentence each."""

    objects: int
    size: int
    points: tuple[str, ...]
    problems: tuple[str, ...]


def open_copy(vault: Vault, where: str | VaultPlan, *, unconditional: bool = False) -> Store:
    """Given a vault and an address, return the store of its copy there, begun where nothing is there yet.

    Raise VaultExists where another vault is, StoreUnconditional where its store has no conditional put and that is not
    allowed by `unconditional`: a site that moves to the copy would rely on it.
    """
    store = open_store(where, create=True, marker=MARKER)
    if store.size(MARKER) is None:
        conditional = proved(where, unconditional=unconditional)
        usable = store if conditional else store.unconditional()
        usable.put_if_absent(MARKER, [marker_text(read_marker(vault.store), conditional=conditional)])
    copy = opened_at(store)
    if copy.id != vault.id:
        raise errors.VaultExists(
            f"another vault is at {store.address}", remedy="choose another address for the copy of this one"
        )
    return copy.store


def copy_vault(vault: Vault, target: Store, progress: Progress) -> Copied:
    """Given a vault and the store of its copy, copy what is missing there. Raise the stores' errors."""
    run = _Run(vault, target, progress)
    try:
        for prefix in ("nodes/", "recipients/", "pruned/"):  # before manifests: they explain what those are without
            run.plain(prefix)
        found = survey(vault, {})
        run.problems += [str(problem) for problem in found.problems]
        shown = {point.id: point for point in found.points}
        for point in found.whole:
            name = manifest.name_of(point.node, point.sequence)
            stored = [each for section in shown[point.id].sections for each in (*section.index, *section.objects)]
            objects = [_Wanted(each.name, each.size, _is_object(each)) for each in stored]
            if not run.has(name) and run.each(objects) and run.each([_Wanted(name, None, _has_hash(point.sha256))]):
                run.points.append(point.id)
        for part, segments in sorted(_streams(vault).items()):
            (run.each if part.rollups else run.in_order)(segments)
        run.plain("verified/")
        run.plain("runs/")
    finally:
        run.close()
    return Copied(run.objects, run.size, tuple(run.points), tuple(run.problems))


Check = Callable[[bytes], str | None]
"""Given an object's bytes, return why they are not good, or None."""


@dataclass(frozen=True)
class _Wanted:
    """An object that the copy must have: its size where that is known, and what its bytes must be."""

    name: str
    size: int | None
    check: Check | None


@dataclass(frozen=True, order=True)
class _Place:
    """The single segments of one epoch, or the roll-ups."""

    node: str
    epoch: int
    rollups: bool


def _streams(vault: Vault) -> dict[_Place, list[_Wanted]]:
    found: dict[_Place, list[tuple[int, _Wanted]]] = {}
    for entry in vault.store.entries("stream/"):
        part = part_of_name(entry.name)
        if part is not None:
            place = _Place(part.node, part.epoch, part.first != part.last)
            wanted = _Wanted(entry.name, entry.size, _is_segment(entry.name, vault.id))
            found.setdefault(place, []).append((part.first, wanted))
    return {place: [each for _, each in sorted(parts, key=lambda part: part[0])] for place, parts in found.items()}


class _Run:
    """One run: what the copy has, what was copied, what was wrong."""

    def __init__(self, vault: Vault, target: Store, progress: Progress) -> None:
        self._vault = vault
        self._target = target
        self._progress = progress
        self._there = {entry.name: entry.size for entry in target.entries("")}
        self._counting = threading.Lock()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="kumodr-copy")
        self.objects = 0
        self.size = 0
        self.points: list[str] = []
        self.problems: list[str] = []

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def has(self, name: str) -> bool:
        """Whether the copy has an object of that name."""
        return name in self._there

    def plain(self, prefix: str) -> None:
        """Copy the small objects below a prefix."""
        entries = sorted(self._vault.store.entries(prefix), key=lambda entry: entry.name)
        self.each([_Wanted(entry.name, entry.size, None) for entry in entries])

    def each(self, wanted: Sequence[_Wanted]) -> bool:
        """Copy what the copy lacks, a few beside each other; return whether it has them all now."""
        missing, good = self._missing(wanted)
        return all(list(self._pool.map(self._copy, missing))) and good

    def in_order(self, wanted: Sequence[_Wanted]) -> bool:
        """As `each`, but end before the first that is not good.

        A run that is killed may leave out some of the last few, and have later ones: the stream ends before them until
        the next run.
        """
        missing, good = self._missing(wanted)
        for chunk in _chunks(missing):
            found = list(self._pool.map(self._good, chunk))
            whole = next((place for place, each in enumerate(found) if each is None), len(chunk))
            list(self._pool.map(self._put, chunk[:whole], found[:whole]))
            if whole < len(chunk):
                return False
        return good

    def _missing(self, wanted: Sequence[_Wanted]) -> tuple[list[_Wanted], bool]:
        """Return what the copy lacks, and whether what it has is of the right size: nothing is put over another."""
        before = len(self.problems)
        for each in wanted:
            size = self._there.get(each.name)
            if size is not None and each.size not in (None, size):
                self.problems.append(
                    f"object {each.name} in the copy has {size} bytes instead of {each.size}: remove it there, "
                    "then run this again"
                )
        unique = {each.name: each for each in wanted if each.name not in self._there}
        return list(unique.values()), len(self.problems) == before

    def _good(self, wanted: _Wanted) -> bytes | None:
        """Return an object's bytes, or None where they are not good, which is a problem then."""
        limit = LARGEST + 2 * LARGEST_HEAD if wanted.name.startswith("stream/") else _LARGEST_SMALL + LARGEST_SEALED
        try:
            data = self._vault.store.get(wanted.name, limit)
        except (errors.ObjectMissing, errors.ObjectDamaged) as error:
            self.problems.append(str(error))
            return None
        problem = wanted.check(data) if wanted.check else None
        if problem is not None:
            self.problems.append(f"object {wanted.name} is not copied: {problem}")
            return None
        return data

    def _copy(self, wanted: _Wanted) -> bool:
        return self._put(wanted, self._good(wanted))

    def _put(self, wanted: _Wanted, data: bytes | None) -> bool:
        if data is None:
            return False
        self._target.put_if_absent(wanted.name, [data])
        with self._counting:
            self._there[wanted.name] = len(data)
            self.objects += 1
            self.size += len(data)
        self._progress("copying", self.size, 0)
        return True


def _chunks(wanted: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Yield runs of them that are small enough to be held at once; one that is larger comes alone."""
    chunk: list[_Wanted] = []
    held = 0
    for each in wanted:
        size = each.size or 0
        if chunk and (len(chunk) == _MOST_AT_ONCE or held + size > _HELD):
            yield chunk
            chunk, held = [], 0
        chunk.append(each)
        held += size
    if chunk:
        yield chunk


def _is_object(stored: StoredObject) -> Check:
    def check(data: bytes) -> str | None:
        wrong = len(data) != stored.size or checksum_of(data) != stored.crc32c
        if wrong or (stored.sha256 is not None and hashlib.sha256(data).hexdigest() != stored.sha256):
            return "it is damaged"
        return None

    return check


def _has_hash(digest: str) -> Check:
    return lambda data: None if hashlib.sha256(data).hexdigest() == digest else "it is not what was read before"


def _is_segment(name: str, vault_id: str) -> Check:
    def check(data: bytes) -> str | None:
        try:
            head = head_of(data, name, vault_id)
        except NOT_GOOD as error:
            return error.what
        body = memoryview(data)[body_at(data) :]
        if len(body) != head.sealed_size or hashlib.sha256(body).hexdigest() != head.sealed_sha256:
            return "it is damaged"
        return None

    return check
