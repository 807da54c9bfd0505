"""A backup run: components stored one by one, then one manifest that makes all of them count, or none.

Why a crash anywhere leaves nothing that looks complete: objects have names that no reader looks for until a manifest
names them; the manifest is one object, put if absent, after every object was acknowledged as durable.
Why nothing is wasted: objects are named by content, and those of a run that died are in the journal.
"""

import hashlib
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.source import Capture, Gone, Progress, SourceFile
from kumodr.vault import manifest
from kumodr.vault.facts import Point, Section, StoredObject
from kumodr.vault.index import file_line, line
from kumodr.vault.keys import NodeKey
from kumodr.vault.layout import LARGE, Cut, Packer, cut_large, key_of
from kumodr.vault.nodes import register
from kumodr.vault.open import Vault
from kumodr.vault.seal import LARGEST_PLAIN, seal
from kumodr.vault.state import Piece, Remembered, State, load, locked, save
from kumodr.vault.tarstream import END, Entry, entry_of, header
from kumodr.vault.uploads import Uploads

_INDEX_PART = 4 << 20


@dataclass(frozen=True)
class Tail:
    """The end of a node's chain: the number of the last manifest and the SHA-256 of its bytes."""

    sequence: int
    sha256: str | None


def tail_of(vault: Vault, node: str) -> Tail:
    """Given a node, return the end of its chain; number 0 where there is none yet."""
    names = sorted(name for name in vault.store.list(f"points/{node}/") if name.endswith(".json"))
    if not names:
        return Tail(0, None)
    text = vault.store.get(names[-1], manifest.LARGEST)
    return Tail(int(names[-1].rpartition("/")[2].removesuffix(".json")), hashlib.sha256(text).hexdigest())


@contextmanager
def begin_backup(vault: Vault, key: NodeKey, directory: Path, clock: Clock, progress: Progress) -> "Generator[Session]":
    """Given an open vault, the node's key and its state directory, hold the node's lock and give a session.

    Raise AnotherRun where a backup is running. Without `commit` nothing of the session counts.
    """
    with locked(directory):
        session = Session(vault, key, directory, clock, progress)
        try:
            yield session
        finally:
            session.close()


class Session:
    """One backup run on a vault. Use through `begin_backup`."""

    def __init__(self, vault: Vault, key: NodeKey, directory: Path, clock: Clock, progress: Progress) -> None:
        self._vault = vault
        self._key = key
        self._directory = directory
        self._clock = clock
        self._progress = progress
        self._state: State = load(directory, vault.id)
        self._taken = clock()
        self._tail = tail_of(vault, key.node)
        self._uploads: Uploads | None = None
        self._sections: list[Section] = []
        self._fingerprints: dict[str, str] = {}
        self._files: dict[str, tuple[str, ...]] = {}
        self._failures: dict[str, str] = {}

    @property
    def stored_bytes(self) -> int:
        """The sealed bytes that this run added to the vault so far."""
        return self._uploads.stored_bytes if self._uploads else 0

    def close(self) -> None:
        """End the worker threads."""
        if self._uploads is not None:
            self._uploads.close()

    def store(self, component: str, capture: Capture) -> None:
        """Given a component's capture, store its files, or use what the last point holds where nothing changed.

        Raise what the capture raises, and the vault's errors; then nothing of the component counts.
        """
        last = self._state.sections.get(component)
        unbroken = self._state.point == f"{self._key.node}-{self._tail.sequence}"
        if capture.fingerprint is not None and last and last.fingerprint == capture.fingerprint and unbroken:
            self._sections.append(last.section)
        else:
            self._sections.append(
                Storing(self._running_uploads(), self._state, self._files, self._progress).run(
                    component, capture, self._vault
                )
            )
        if capture.fingerprint is not None:
            self._fingerprints[component] = capture.fingerprint

    def fail(self, component: str, sentence: str) -> None:
        """Given a component that could not be captured and why, record it in the point."""
        self._failures[component] = sentence

    def commit(self) -> Point:
        """Put the manifest that makes the run count, and return its point.

        Where another writer of this node took the number, the next one is tried on top of it.
        """
        register(self._vault, self._key)
        while True:
            sequence = self._tail.sequence + 1
            point = Point(
                id=f"{self._key.node}-{sequence}",
                node=self._key.node,
                sequence=sequence,
                taken=self._taken,
                sections=tuple(self._sections),
                failures=self._failures,
                previous=self._tail.sha256,
                signed_by=self._key.public,
                sha256="",
            )
            text = manifest.render(point, self._vault.id, self._key)
            name = manifest.name_of(point.node, sequence)
            if self._vault.store.put_if_absent(name, [text]):
                break
            self._tail = tail_of(self._vault, self._key.node)
        self._remember(point)
        return manifest.parse(text, name, self._vault.id)

    def _running_uploads(self) -> Uploads:
        if self._uploads is None:
            self._uploads = Uploads(self._vault, self._state, self._directory, self._key.naming_key())
        return self._uploads

    def _remember(self, point: Point) -> None:
        sections = dict(self._state.sections)
        for section in point.sections:
            if section.component in self._fingerprints:
                sections[section.component] = Remembered(self._fingerprints[section.component], section)
        reused = self._uploads is None and self._state.point is not None
        present = [*point.sections, *(each.section for each in sections.values())]
        wanted = {stored.name for section in present for stored in section.objects}
        wanted |= {name for names in self._files.values() for name in names}
        files = {key: names for key, names in self._state.files.items() if set(names) <= wanted} | self._files
        objects = {name: piece for name, piece in self._state.objects.items() if reused or name in wanted}
        save(self._directory, self._vault.id, State(point.id, sections, objects, files))


class Storing:
    """One component on its way into the vault."""

    def __init__(self, uploads: Uploads, state: State, files: dict[str, tuple[str, ...]], progress: Progress) -> None:
        self._uploads = uploads
        self._state = state
        self._known_files = files
        self._progress = progress
        self._placed: list[tuple[Future[Piece] | Piece, tuple[tuple[Entry, int], ...]]] = []
        self._index = bytearray()
        self._index_objects: list[StoredObject] = []
        self._objects: list[StoredObject] = []
        self._large_files: dict[str, Sequence[Future[Piece] | Piece]] = {}
        self._count = 0
        self._size = 0

    def run(self, component: str, capture: Capture, vault: Vault) -> Section:
        """Store every file of the capture and its index; return the section."""
        packer = Packer()
        for file in capture.files:
            try:
                if file.kind == "file" and file.size >= LARGE:
                    self._large(file)
                elif (full := packer.add(file)) is not None:
                    self._small(full)
            except Gone:
                continue
            except OSError as error:
                raise errors.ComponentUnavailable(
                    f"{component}: {file.path} cannot be read: {error.strerror or error}"
                ) from error
            self._count += file.kind == "file"
            self._size += file.size if file.kind == "file" else 0
            self._progress(f"storing {component}", self._size, 0)
            self._settle(keep=64, vault=vault)
        self._small(packer.take(END))
        facts = capture.facts()
        self._settle(keep=0, vault=vault)
        for key, promises in self._large_files.items():
            self._known_files[key] = tuple(_kept(promise).stored.name for promise in promises)
        self._index += line(["s", dict(facts.sealed)])
        self._flush_index(vault)
        return Section(
            component=component,
            objects=tuple(self._objects),
            index=tuple(self._index_objects),
            files=self._count,
            size=self._size,
            facts=facts.clear,
        )

    def _small(self, cut: Cut) -> None:
        self._placed.append((self._uploads.submit(cut.plain), cut.files))

    def _large(self, file: SourceFile) -> None:
        key = key_of(file)
        pieces = self._stored_before(key)
        if pieces is not None:
            entry = entry_of(file)
            starts = ((entry, len(header(entry))),)
            self._placed += [(piece, starts if number == 0 else ()) for number, piece in enumerate(pieces)]
        else:
            placed = [(self._uploads.submit(cut.plain), cut.files) for cut in cut_large(file)]
            self._placed += placed
            pieces = [promise for promise, _ in placed]
        if key:
            self._large_files[key] = pieces

    def _stored_before(self, key: str | None) -> list[Piece] | None:
        names = self._state.files.get(key) if key else None
        if names is None or any(name not in self._state.objects for name in names):
            return None
        return [self._state.objects[name] for name in names]

    def _settle(self, *, keep: int, vault: Vault) -> None:
        """Write the index lines of what is stored, in order, leaving at most `keep` objects open."""
        while len(self._placed) > keep:
            promise, files = self._placed.pop(0)
            piece = _kept(promise)
            self._objects.append(piece.stored)
            self._index += line(["o", piece.stored.name, piece.plain_size, piece.blake3])
            for entry, offset in files:
                self._index += file_line(entry, offset)
                if len(self._index) >= _INDEX_PART:
                    self._flush_index(vault)

    def _flush_index(self, vault: Vault) -> None:
        """Store the index lines gathered so far, always whole lines, as further objects of the index."""
        data = bytes(self._index)
        self._index.clear()
        while data:
            end = len(data) if len(data) <= LARGEST_PLAIN else data.rfind(b"\n", 0, LARGEST_PLAIN) + 1
            sealed = seal(data[:end], vault.public_keys())
            digest = hashlib.sha256(b"".join(sealed.pieces)).hexdigest()
            name = f"objects/{digest[:2]}/{digest[:40]}"
            vault.store.put_if_absent(name, sealed.pieces)
            self._index_objects.append(StoredObject(name, sealed.size, sealed.crc32c, digest))
            data = data[end:]


def _kept(promise: Future[Piece] | Piece) -> Piece:
    return promise if isinstance(promise, Piece) else promise.result()
