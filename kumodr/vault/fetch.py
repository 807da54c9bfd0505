"""Bring a section's files back into a fresh directory.

Everything in the vault is untrusted: the whole index is checked before anything is written; directories and files are
made new, without following links; symbolic links are made last, and only where they stay inside. The work is done in
`.<name>.partial` beside the target, synced, and renamed: the target appears whole or not at all.
"""

import contextlib
import errno
import os
import shutil
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath

from kumodr import errors
from kumodr.durable import WRITE, sync_directory
from kumodr.source import Progress
from kumodr.vault.facts import Section, StoredObject
from kumodr.vault.index import ObjectPlan, Placed, read_plan
from kumodr.vault.keys import Identities
from kumodr.vault.memory import freed_memory_kept
from kumodr.vault.open import Vault
from kumodr.vault.seal import LARGEST_SEALED, checksum_of, unseal_pieces
from kumodr.vault.tarstream import Entry
from kumodr.writeback import begin_writing

_WORKERS = 4
_WAITING = 6
_IMPLIED = "implied"
"""A directory that a path runs through; its own entry may come later in the stream, or never."""

_SYNC_EACH = 2000
"""Up to this many files are synced one by one, beside each other; more are synced with the whole file system."""


@dataclass(frozen=True)
class Fetched:
    """What was brought back: files, their bytes, and the links that lead outside and were not made."""

    files: int
    size: int
    outside_links: tuple[str, ...]


def open_object(vault: Vault, stored: StoredObject, plan: ObjectPlan, identities: Identities) -> bytes:
    """Given an object and what it must hold, return its plain bytes. Raise ObjectMissing, ObjectDamaged, WrongKey."""
    return b"".join(open_pieces(vault, stored, plan, identities))


def open_pieces(vault: Vault, stored: StoredObject, plan: ObjectPlan, identities: Identities) -> list[memoryview]:
    """As `open_object`, but return the plain bytes in pieces, to be joined."""
    import blake3

    sealed = vault.store.get(stored.name, LARGEST_SEALED)
    if len(sealed) != stored.size:
        raise errors.ObjectDamaged(f"object {stored.name} is damaged")
    try:
        pieces = unseal_pieces(sealed, identities.secrets, plan.plain_size, stored.name)
    except errors.WrongKey:
        # The checksum is asked only now: what opens, and has the right content, is not damaged.
        if checksum_of(sealed) != stored.crc32c:
            raise errors.ObjectDamaged(f"object {stored.name} is damaged") from None
        raise
    digest = blake3.blake3()
    for piece in pieces:
        digest.update(piece)
    if digest.hexdigest() != plan.blake3:
        raise errors.ObjectDamaged(f"object {stored.name} holds other content than the index says")
    return pieces


def fetch(vault: Vault, section: Section, identities: Identities, target: Path, progress: Progress) -> Fetched:
    """Given a section and a target that does not exist, bring back every file of it.

    Raise ObjectMissing, ObjectDamaged, WrongKey, ManifestUnsafe, DiskFull, TargetNotEmpty; then nothing is there.
    """
    if target.exists() or target.is_symlink():
        raise errors.TargetNotEmpty(f"{target} exists")
    checked = check_paths(
        placed.entry for plan in read_plan(vault, section, identities.secrets) for placed in plan.files
    )
    partial = target.with_name(f".{target.name}.partial")
    try:
        with written_to(target), freed_memory_kept():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700, parents=True)
            writer = _Writer(vault, section, identities, partial, progress)
            writer.write_contents(sync_each=checked.files <= _SYNC_EACH)
            outside = writer.make_links()
            writer.finish_directories(sync_each=checked.files <= _SYNC_EACH)
            partial.rename(target)
            sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Fetched(checked.files, checked.size, outside)


@contextlib.contextmanager
def written_to(target: Path) -> Generator[None]:
    """Given where something is restored to, turn what the file system says into DiskFull or UsageWrong."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.DiskFull(f"the disk of {target.parent} is full") from error
        raise errors.UsageWrong(
            f"{target} cannot be written: {error.strerror}", remedy="choose a directory where this user may write"
        ) from error


@dataclass(frozen=True)
class Checked:
    """What the index promises: files and their bytes."""

    files: int
    size: int


def check_paths(entries: Iterable[Entry]) -> Checked:
    """Given every entry of an index, return their count and bytes. Raise ManifestUnsafe for a path that is absolute,
    climbs, is empty or double, or lies below something that is no directory.
    """
    seen: dict[str, str] = {}
    files = size = 0
    for entry in entries:
        problem = _path_problem(entry.path)
        before = seen.get(entry.path)
        if problem is None and (before if entry.kind != "directory" else before not in (None, _IMPLIED)):
            problem = "stands there twice, or is a directory elsewhere"
        if problem is None:
            parent = entry.path.rpartition("/")[0]
            while parent:
                if seen.get(parent, _IMPLIED) not in (_IMPLIED, "directory"):
                    problem = f"lies below {parent!r}, which is no directory"
                    break
                if parent in seen:
                    break
                seen[parent] = _IMPLIED
                parent = parent.rpartition("/")[0]
        if problem is not None:
            raise errors.ManifestUnsafe(f"the index holds the path {entry.path[:200]!r}, which {problem}")
        seen[entry.path] = entry.kind
        files += entry.kind == "file"
        size += entry.size if entry.kind == "file" else 0
    return Checked(files, size)


def _path_problem(path: str) -> str | None:
    if not path or path.startswith("/") or "\0" in path:
        return "is empty or absolute"
    if any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in path.split("/")):
        return "climbs or is malformed"
    return None


def link_stays_inside(path: str, target: str) -> bool:
    """Given a link's path in the tree and its target, return whether it leads to a place in the tree."""
    if not target or target.startswith("/") or "\0" in target:
        return False
    depth = len(PurePosixPath(path).parts) - 1
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True


class _Writer:
    """The files of one section, on their way to a directory of their own."""

    def __init__(self, vault: Vault, section: Section, identities: Identities, root: Path, progress: Progress) -> None:
        self._vault = vault
        self._section = section
        self._identities = identities
        self._root = root
        self._progress = progress
        self._made: set[str] = {""}
        self._directories: list[Entry] = []
        self._links: list[Entry] = []

    def write_contents(self, *, sync_each: bool) -> None:
        """Write every file; objects are opened and written beside each other, a few at a time."""
        done = 0
        waiting: deque[tuple[Future[None], int]] = deque()
        large: _Large | None = None
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="kumodr-fetch") as pool:
            try:
                plans = read_plan(self._vault, self._section, self._identities.secrets)
                for stored, plan in zip(self._section.objects, plans, strict=False):
                    self._note(plan)
                    begun = _spans(plan)
                    if begun is not None:
                        large = _Large(self._create(begun.entry), begun.entry, sync_each)
                    elif plan.rest_of is None:
                        large = None
                    waiting.append((pool.submit(self._write_object, stored, plan, large, sync_each), plan.plain_size))
                    while len(waiting) >= _WAITING:
                        future, size = waiting.popleft()
                        future.result()
                        done += size
                        self._progress(f"restoring {self._section.component}", done, self._section.size)
                for future, _ in waiting:
                    future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if not sync_each:
            os.sync()

    def make_links(self) -> tuple[str, ...]:
        """Make the symbolic links, when nothing is written any more; return those that lead outside, not made."""
        outside: list[str] = []
        for entry in self._links:
            if link_stays_inside(entry.path, entry.target):
                os.symlink(entry.target, self._root / entry.path)
            else:
                outside.append(entry.path)
        return tuple(outside)

    def finish_directories(self, *, sync_each: bool) -> None:
        """Give directories their modes and times, deepest first, and make their names durable."""
        for entry in sorted(self._directories, key=lambda entry: -entry.path.count("/")):
            path = self._root / entry.path
            _give(path, entry)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
        if sync_each:
            for path in self._made:
                sync_directory(self._root / path)
        else:
            os.sync()

    def _note(self, plan: ObjectPlan) -> None:
        """Make the directories that the object's files need, and keep the links for later."""
        for placed in plan.files:
            entry = placed.entry
            if entry.kind == "symlink":
                self._links.append(entry)
            if entry.kind == "directory":
                self._directories.append(entry)
            self._make(entry.path if entry.kind == "directory" else entry.path.rpartition("/")[0])

    def _make(self, path: str) -> None:
        if path not in self._made:
            self._make(path.rpartition("/")[0])
            os.mkdir(self._root / path, 0o700)
            self._made.add(path)

    def _create(self, entry: Entry) -> int:
        descriptor = os.open(
            self._root / entry.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        _give(descriptor, entry)
        return descriptor

    def _write_object(self, stored: StoredObject, plan: ObjectPlan, large: "_Large | None", sync_each: bool) -> None:
        plain = Pieces(open_pieces(self._vault, stored, plan, self._identities))
        if plan.rest_of is not None and large is not None:
            large.write(plain.part(0, max(0, plan.rest_of.entry.size - plan.rest_at)), plan.rest_at)
            return
        for placed in plan.files:
            if placed.entry.kind != "file":
                continue
            content = plain.part(placed.offset, placed.entry.size)
            if large is not None:
                large.write(content, 0)
                return
            descriptor = self._create(placed.entry)
            try:
                _write(descriptor, content, 0)
            finally:
                _close(descriptor, sync_each, placed.entry)


class _Large:
    """A file that several objects fill, beside each other; who writes the last of it closes it."""

    def __init__(self, descriptor: int, entry: Entry, sync: bool) -> None:
        self._descriptor = descriptor
        self._entry = entry
        self._sync = sync
        self._left = entry.size
        self._lock = threading.Lock()

    def write(self, data: Sequence[memoryview], at: int) -> None:
        size = sum(map(len, data))
        _write(self._descriptor, data, at)
        if self._sync:
            begin_writing(self._descriptor, at, size)
        with self._lock:
            self._left -= size
            whole = self._left == 0
        if whole and size:
            _close(self._descriptor, self._sync, self._entry)
            self._descriptor = -1

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _spans(plan: ObjectPlan) -> Placed | None:
    """Return the file that begins in this object and goes on in the next, or None."""
    for placed in plan.files:
        if placed.entry.kind == "file" and placed.offset + placed.entry.size > plan.plain_size:
            return placed
    return None


class Pieces:
    """Plain bytes in pieces, of which parts are taken without copying."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))

    def part(self, start: int, size: int) -> list[memoryview]:
        """Given a range, return its bytes in pieces; shorter where the bytes end."""
        found: list[memoryview] = []
        number = bisect_right(self._ends, start)
        while size > 0 and number < len(self._pieces):
            piece = self._pieces[number]
            skipped = max(0, start - self._ends[number] + len(piece))
            found.append(piece[skipped : skipped + size])
            size -= len(found[-1])
            number += 1
        return found


def _write(descriptor: int, data: Sequence[memoryview], at: int) -> None:
    for piece in data:
        for start in range(0, len(piece), WRITE):
            part = piece[start : start + WRITE]
            at += len(part)
            while part:
                part = part[os.pwrite(descriptor, part, at - len(part)) :]


def _close(descriptor: int, sync: bool, entry: Entry) -> None:
    try:
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give(place: Path | int, entry: Entry) -> None:
    """Give a file or directory its owner, where this user may, and its mode without setuid."""
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.chown(place, entry.uid, entry.gid)
    os.chmod(place, entry.mode & 0o2777 if entry.kind == "directory" else entry.mode & 0o777)
