"""A second copy: bring another vault up to date with this one. Needs no key; what is missing is copied, nothing else.

The order is that of the writers: objects before the manifests that name them, segments of an epoch by their numbers,
results at the end. So a copy that was interrupted is a vault of an earlier time, whole for what it shows, and the next
run goes on behind it. Each object is checked as it comes: size and CRC-32C, or SHA-256, against the signed manifest
that names it; the signed head of a segment and the hash in it. What is not good is named and not copied, nor is a
manifest with such an object. Marks are not copied: they are about the vault that nodes add to.
A copy keeps what was pruned here; clear it with `kumodr prune --vault COPY` while no copying runs.
"""

import hashlib
from collections.abc import Callable, Iterable
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

_WORKERS = 4
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
    run.plain("nodes/")
    run.plain("recipients/")
    run.plain("pruned/")  # before manifests: they explain what those are without
    found = survey(vault, {})
    run.problems += [str(problem) for problem in found.problems]
    for point in found.whole:
        name = manifest.name_of(point.node, point.sequence)
        if name in run.there:
            continue
        shown = next(each for each in found.points if each.id == point.id)
        objects = [each for section in shown.sections for each in (*section.index, *section.objects)]
        if run.each((each.name for each in objects), {each.name: _is_object(each) for each in objects}):
            run.each([name], {name: _has_hash(point.sha256)})
            run.points.append(point.id)
    epochs: dict[tuple[str, int, bool], list[tuple[int, str]]] = {}
    for name in vault.store.list("stream/"):
        part = part_of_name(name)
        if part is not None:
            epochs.setdefault((part.node, part.epoch, part.first != part.last), []).append((part.first, name))
    for place in sorted(epochs):
        for _, name in sorted(epochs[place]):
            if not run.each([name], {name: _is_segment(name, vault.id)}) and not place[2]:
                break
    run.plain("verified/")
    run.plain("runs/")
    return Copied(run.objects, run.size, tuple(run.points), tuple(run.problems))


Check = Callable[[bytes], str | None]
"""Given an object's bytes, return why they are not good, or None."""


class _Run:
    """One run: what the copy has, what was copied, what was wrong."""

    def __init__(self, vault: Vault, target: Store, progress: Progress) -> None:
        self._vault = vault
        self._target = target
        self._progress = progress
        self.there = {entry.name for entry in target.entries("")}
        self.objects = 0
        self.size = 0
        self.points: list[str] = []
        self.problems: list[str] = []

    def plain(self, prefix: str) -> None:
        """Copy the small objects below a prefix."""
        self.each(sorted(self._vault.store.list(prefix)), {})

    def each(self, names: Iterable[str], checks: dict[str, Check]) -> bool:
        """Copy those of the names that the copy lacks, a few beside each other; return whether it has them all now."""
        missing = [name for name in dict.fromkeys(names) if name not in self.there]
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="kumodr-copy") as pool:
            done = list(pool.map(self._copy, missing, map(checks.get, missing)))
        self.there.update(name for name, good in zip(missing, done, strict=True) if good)
        return all(done)

    def _copy(self, name: str, check: Check | None) -> bool:
        limit = LARGEST + 2 * LARGEST_HEAD if name.startswith("stream/") else _LARGEST_SMALL + LARGEST_SEALED
        try:
            data = self._vault.store.get(name, limit)
        except (errors.ObjectMissing, errors.ObjectDamaged) as error:
            self.problems.append(str(error))
            return False
        problem = check(data) if check else None
        if problem is not None:
            self.problems.append(f"object {name} is not copied: {problem}")
            return False
        self._target.put_if_absent(name, [data])
        self.objects += 1
        self.size += len(data)
        self._progress("copying", self.size, 0)
        return True


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
