"""A backup run: components stored one by one, then one manifest that makes all of them count, or none.

Why a crash anywhere leaves nothing that looks complete: objects have names that no reader looks for until a manifest
names them; the manifest is one object, put if absent, after every object was acknowledged as durable.
Why nothing is wasted: objects are named by content, and those of a run that died are in the journal.
"""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kumodr import errors
from kumodr.clock import Clock
from kumodr.source import Capture, Progress
from kumodr.vault import manifest
from kumodr.vault.facts import Point, Section, StreamJoin
from kumodr.vault.keys import NodeKey
from kumodr.vault.marks import honouring, marks_of
from kumodr.vault.nodes import register
from kumodr.vault.numbers import newest_number
from kumodr.vault.open import Vault
from kumodr.vault.recipients import sealed_to
from kumodr.vault.state import Remembered, State, load, locked, save

if TYPE_CHECKING:
    from kumodr.vault.uploads import Uploads


@dataclass(frozen=True)
class Tail:
    """The end of a node's chain: the last manifest's number, the SHA-256 of its bytes, the mark that it honours."""

    sequence: int
    sha256: str | None
    marks: int = 0


def tail_of(vault: Vault, node: str) -> Tail:
    """Given a node, return the end of its chain; number 0 where there is none yet."""
    listed = manifest.newest_of(vault.store.list(f"points/{node}/"), node)
    newest = newest_number(vault.store, partial(manifest.name_of, node), listed)
    if newest == 0:
        return Tail(0, None)
    name = manifest.name_of(node, newest)
    text = vault.store.get(name, manifest.LARGEST)
    try:
        marks = manifest.parse(text, name, vault.id).marks
    except (errors.ManifestForged, errors.VaultFormatUnknown):
        marks = 0
    return Tail(newest, hashlib.sha256(text).hexdigest(), marks)


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
        self._vault = vault = sealed_to(vault, key)
        self._key = key
        self._directory = directory
        self._clock = clock
        self._progress = progress
        self._taken = clock()
        self._tail = tail_of(vault, key.node)
        if self._tail.sequence == 0:
            register(vault, key)  # before an object of it is there: prune waits for every node that it knows
        self._marks = marks_of(vault)
        self._state: State = honouring(load(directory, vault.id), vault, self._marks)
        elsewhere = self._state.address not in ("", vault.store.address)
        if self._state.generation != vault.generation or elsewhere:
            self._state = State(marks=self._state.marks, generation=vault.generation)
        self._check_marks()
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
            from kumodr.vault.storing import Storing

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

    def commit(self, stream: StreamJoin | None = None) -> Point:
        """Put the manifest that makes the run count, and return its point; `stream` where a stream goes on from it.

        Where another writer of this node took the number, the next one is tried on top of it. Raise AnotherRun where
        that one knows of objects to be deleted that this one may use.
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
                stream=stream,
                marks=self._state.marks,
            )
            text = manifest.render(point, self._vault.id, self._key)
            name = manifest.name_of(point.node, sequence)
            if self._vault.store.put_if_absent(name, [text]):
                break
            self._tail = tail_of(self._vault, self._key.node)
            self._check_marks()
        self._remember(point)
        return replace(point, sha256=hashlib.sha256(text).hexdigest())

    def _running_uploads(self) -> "Uploads":
        from kumodr.vault.uploads import Uploads

        if self._uploads is None:
            self._uploads = Uploads(self._vault, self._state, self._directory, self._key.naming_key(), self._marks)
        return self._uploads

    def _check_marks(self) -> None:
        """Numbers of marks never fall along a chain: what comes behind a point may not use what that one avoided."""
        if self._tail.marks > self._state.marks:
            raise errors.AnotherRun(
                f"{self._key.node}-{self._tail.sequence} knows of objects to be deleted that this run may be using",
                remedy="run this again",
            )

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
        state = replace(self._state, address=self._vault.store.address)
        state = replace(state, point=point.id, sections=sections, objects=objects, files=files)
        save(self._directory, self._vault.id, state)
