"""Fail the N-th: every file operation and every store call of a small scenario, for all N, once and for good.

Only what kumodr does is counted, below the test's folder, on the loop's thread and on those that it starts. With
nothing healed, what the vault gives is a state that was; healed, and started again where it ended, the loop protects
again, without help, and what the vault gives is what the spool holds.
"""

import builtins
import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faults import BY_DESCRIPTOR, BY_PATH, FailingStore, Faults, Numbers, Written
from protected import EpochOver, Kind, Protected
from servers import wait_for
from vaults import capture_of, quiet

from kumodr import errors
from kumodr.protect import shipper, stream
from kumodr.protect.progress import BaseFacts
from kumodr.protect.segment_writer import SegmentWriter
from kumodr.source import Held, SourceFile
from kumodr.vault.backup import begin_backup
from kumodr.vault.facts import StreamJoin
from kumodr.vault.open import Vault
from kumodr.vault.store import Store
from kumodr.vault.stream import epochs, extent, trust_of
from kumodr.vault.streamread import Reading


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Every file operation of this process goes through it."""
    made = Faults()

    def put_before(name: str) -> None:
        real = getattr(os, name)

        def operation(where: Any = ".", *words: Any, **options: Any) -> Any:
            found = made.is_ours(where, options.get("dir_fd"))
            if found is not None:
                writes = name == "open" and words and words[0] & (os.O_WRONLY | os.O_RDWR)
                made.meet("open to write" if writes else name, found)
            return real(where, *words, **options)

        monkeypatch.setattr(os, name, operation)

    for name in (*BY_PATH, *BY_DESCRIPTOR):
        put_before(name)
    real_open, real_fdopen = io.open, os.fdopen

    def opened(where: Any, *words: Any, **options: Any) -> Any:
        if options.get("opener") is None and not isinstance(where, int) and made.is_ours(where) is not None:
            made.meet("open", str(where))
        return real_open(where, *words, **options)

    def adopted(descriptor: int, mode: str = "r", *words: Any, **options: Any) -> Any:
        where = made.is_ours(descriptor)
        file = real_fdopen(descriptor, mode, *words, **options)
        return Written(file, made, where) if where is not None and "w" in mode else file

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(os, "fdopen", adopted)
    return made


class Scene:
    """The scenario, again and again on one vault and one state directory."""

    def __init__(self, folder: Path, first: Protected, faults: Faults, store: Callable[[Store], Store]) -> None:
        self.faults = faults
        folder.mkdir()
        self.protected = Protected(folder, spool_of=first, backlog=200_000)
        made = self.protected.made
        self.store = store(made.vault.store)
        self.protected.vault = Vault(self.store, made.vault.id, made.vault.recipients)
        self.log = self.protected.logs / "20261124-120000.000000001"
        self.log_at: dict[str, bytes] = {}
        self.dead = False
        self.restarts = 0
        self.runs = 0
        self.protected.crash()
        self.prepare()

    def prepare(self) -> None:
        """State A: recoverable."""
        protected = self.protected
        for number in list(protected.state[0]):
            protected.finish_message(int.from_bytes(number, "big"))
        protected.accept(1, 10)
        protected.accept(2, 20)
        self.log.write_bytes(b"one\n")
        protected.round()
        self.base(planned=False)
        self.write(b"two\n")
        protected.accept(3, 30)
        protected.round()
        assert protected.recoverable() is not None

    def play(self) -> None:
        """Messages come and go, a base in the middle, a stop; it ends as it began, but for what is in the messages."""
        protected = self.protected
        self.runs += 1
        seed = 1000 * self.runs
        protected.accept(4, seed + 40)
        protected.finish_message(1)
        self.write(b"three\n")
        self.round()
        protected.put_off(2, seed + 21)
        protected.accept(1, seed + 10)
        self.base(planned=True)
        protected.finish_message(4)
        self.write(b"four\n")
        self.stop()
        protected.put_off(3, seed + 31)
        self.round()

    def heal(self) -> None:
        """From now on nothing fails: what is there now is protected, without help."""
        self.faults.heal()
        protected = self.protected

        def well() -> bool:
            self.round()
            assert not self.dead, "it cannot be started though nothing fails"
            self.base(planned=False)
            self.round()
            return protected.stream._joined and not protected.stream._shipper.waiting()

        wait_for("protection", well, 10)
        self.round()
        state, _ = protected.recoverable() or (None, 0)
        assert state == protected.copied()
        assert self.recovered_log() == self.log.read_bytes()

    def check(self) -> None:
        """What the vault gives is a state that was, exactly."""
        found = self.protected.recoverable()
        assert found is not None
        state, (epoch, number) = found
        if number:
            assert state == self.protected.states[epoch, number]

    def round(self) -> None:
        protected = self.protected
        self._before()
        self._in_the_loop(lambda: protected.stream.round())
        unhealthy = self.faults.forever and self.faults.number
        unconfirmed = protected.stream._asked is not None  # nothing is shipped yet, so there is nothing to wait for
        self._in_the_loop(lambda: protected.stream.acknowledge(0.005 if unhealthy or unconfirmed else 2.0))

    def stop(self) -> None:
        self._before()
        self._in_the_loop(lambda: self.protected.stream.finish(0.01))
        self.dead = True
        self._before()

    def base(self, *, planned: bool) -> None:
        """A base where one is due; what fails in its process ends that process, not the loop."""
        protected = self.protected
        if planned:
            protected.time += timedelta(days=1)
        due = None if self.dead else protected.stream.base_due()
        if due is None:
            return
        with self.faults.at_work(), contextlib.suppress(errors.KumodrError, OSError, EpochOver):
            self._take_base(due)

    def _take_base(self, due: stream.BaseDue) -> None:
        protected, made = self.protected, self.protected.made
        whole: list[int] = []
        state, log = protected.copied(), b""
        vault = Vault(self.store, made.vault.id, made.vault.recipients)
        with begin_backup(vault, made.key, made.state, protected.clock, quiet) as session:
            with self._the_test():
                state, log = protected.copied(), self.log.read_bytes()
            session.store("spool", capture_of([SourceFile("meta/x", size=4, content=Held(os.urandom(4)))]))
            with self._the_test():
                protected.accept(7, 70 + self.runs)
                self.round()
                number = protected.stream.number_of_next_round(due.epoch) if not self.dead else None
                if number is None:
                    raise EpochOver
                whole.append(number)
                protected.finish_message(7)
            session.store("logs", capture_of([SourceFile("1-logs/x", size=4, content=Held(os.urandom(4)))]))
            name = f"primary-{session._tail.sequence + 1}"  # it may be there though the answer was lost
            protected.bases[name] = stream_base(name, state)
            self.log_at[name] = log
            point = session.commit(StreamJoin(due.epoch, due.begin, whole[0]))
        assert point.id == name
        protected.stream.base_stored(due.epoch, BaseFacts(point.id, point.taken.isoformat(), 4, whole[0]))

    @contextlib.contextmanager
    def _the_test(self) -> Iterator[None]:
        armed, self.faults.armed = self.faults.armed, False
        try:
            yield
        finally:
            self.faults.armed = armed

    def write(self, data: bytes) -> None:
        with open(self.log, "ab") as file:
            file.write(data)

    def recovered_log(self) -> bytes:
        """The log that base and stream give."""
        made = self.protected.made
        from kumodr.vault.points import survey

        trust = trust_of(made.vault, {})
        point = max(survey(made.vault, {}).points, key=lambda each: each.sequence)
        join = point.stream
        assert join is not None
        listed = epochs(made.vault, "primary")[join.epoch]
        reach, _ = extent(made.vault, listed, join.begin, trust)
        assert reach is not None
        content = bytearray(self.log_at[point.id])
        for segment in Reading(made.vault, listed, join.begin, reach.last, trust, made.identities):
            for piece in segment.content.logs:
                assert piece.path == f"1-logs/{self.log.name}"
                assert piece.offset <= len(content), "a gap in the log"
                content[piece.offset : piece.offset + len(piece.data)] = piece.data
        return bytes(content)

    def _before(self) -> None:
        """Start the loop again where it ended."""
        protected = self.protected
        if self.dead:
            with contextlib.suppress(errors.KumodrError), self.faults.at_work():
                protected.crash()
                self.dead = False

    def _in_the_loop(self, call: Callable[[], object]) -> None:
        """Call the loop; a named error ends its process. Anything else is a bug."""
        if self.dead:
            return
        try:
            with self.faults.at_work():
                call()
        except errors.KumodrError:
            self.dead = True
            self.restarts += 1


def stream_base(point: str, state: Any) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(base=point, state=state)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory, and no waiting."""
    monkeypatch.setattr(shipper, "_FIRST_PAUSE", 0.0005)
    monkeypatch.setattr(shipper, "_LONGEST_PAUSE", 0.002)
    monkeypatch.setattr(stream, "_PAUSES", (0.0005,))
    monkeypatch.setattr("kumodr.protect.local_source._SHARE", 1.0)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # its failing is played; waiting for a disk is not
    folder = Path(tempfile.mkdtemp(prefix="kumodr-faults-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def noted(scene: Scene) -> Iterator[None]:
    """Note for each segment what the spool held when it was sealed."""
    real = SegmentWriter.seal

    def seal(writer: SegmentWriter, *words: Any, **options: Any) -> shipper.Shipment:
        done = real(writer, *words, **options)
        scene.protected.states[done.epoch, done.number] = scene.protected.copied()
        return done

    SegmentWriter.seal = seal
    try:
        yield
    finally:
        SegmentWriter.seal = real


def run(scene: Scene, number: int, *, forever: bool = False) -> int:
    """Play the scenario with the N-th failing; return how many there were."""
    faults = scene.faults
    try:
        with noted(scene):
            faults.begin(faults.folder, number, forever=forever)
            scene.play()
            count = faults.count
            scene.check()
            scene.heal()
            return count
    except BaseException as error:
        error.add_note(f"{number} {forever} {faults.failed[:3]} {scene.protected.said[-5:]}")
        raise


@contextlib.contextmanager
def scenes(folder: Path, kind: Kind, faults: Faults, store: Callable[[Store], Store]) -> Iterator[Callable[[], Scene]]:
    """Give a function that gives the scene, a fresh one now and then so that the vault stays small."""
    faults.folder = str(folder)
    first = Protected(folder / "first", kind)
    made: list[Scene] = []

    def scene() -> Scene:
        if not made or made[-1].runs >= 10:
            if made:
                made[-1].protected.close()
            made.append(Scene(folder / f"scene-{len(made)}", first, faults, store))
        return made[-1]

    try:
        yield scene
    finally:
        faults.heal()
        for each in made[-1:]:
            each.protected.close()
        first.close()


@pytest.mark.parametrize("kind", ["rocksdb", "localdisk"])
def test_every_file_operation_fails(faults: Faults, quick: Path, kind: Kind) -> None:
    with scenes(quick, kind, faults, lambda store: store) as scene:
        undisturbed = run(scene(), 0)
        assert undisturbed > 150
        numbers = Numbers(at_least=150)
        for number in numbers:
            for forever in (False, True):
                count = run(scene(), number, forever=forever)
                assert count < 20 * undisturbed, "the loop spins"
                if faults.failed:
                    numbers.came()


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("kind", ["rocksdb", "localdisk"])
def test_every_call_of_the_store_fails(faults: Faults, quick: Path, kind: Kind, after: bool) -> None:
    calls = Faults()
    with scenes(quick, kind, calls, lambda store: FailingStore(store, calls, after=after)) as scene:
        numbers = Numbers(at_least=10)
        for number in numbers:
            for forever in (False, True):
                run(scene(), number, forever=forever)
                if calls.failed:
                    numbers.came()
