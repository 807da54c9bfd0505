"""A spool under protection, every part real but the clock's owner: who writes it is told each step by the test."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from faulty import FaultyStore
from servers import wait_for
from vaults import Bench, bench, quiet
from wal_database import WalDatabase, value

from kumodr.components.logs import LogsComponent
from kumodr.components.spool import SpoolComponent
from kumodr.plan.model import Components, LogsPlan, Plan, ProtectPlan, SpoolPlan, VaultPlan
from kumodr.protect import shipper
from kumodr.protect import stream as stream_module
from kumodr.protect.base import Base, take_base
from kumodr.protect.figures import Board, Figures
from kumodr.protect.listed import Listed, taken_in
from kumodr.protect.progress import BaseFacts
from kumodr.protect.stream import Stream
from kumodr.spool.localdisk import path_of
from kumodr.vault.backup import begin_backup
from kumodr.vault.facts import StreamJoin
from kumodr.vault.open import Vault
from kumodr.vault.points import survey
from kumodr.vault.stream import epochs, extent, trust_of
from kumodr.vault.streamread import Reading

Kind = Literal["rocksdb", "localdisk"]
State = tuple[dict[bytes, bytes], dict[bytes, bytes]]
BEGUN = datetime(2026, 11, 24, 12, tzinfo=UTC)


class RocksServer:
    """Two databases, each in a process of its own, written as KumoMTA does."""

    def __init__(self, spool: Path) -> None:
        spool.mkdir()
        self._halves = {name: WalDatabase(spool / name, buffer=32 << 10) for name in ("meta", "data")}

    def put(self, half: str, number: int, seed: int, size: int) -> None:
        self._halves[half].put(number, seed, size)

    def delete(self, half: str, number: int) -> None:
        self._halves[half].delete(number)

    def flush(self) -> None:
        for each in self._halves.values():
            each.tell("flush")

    def restart(self) -> None:
        for each in self._halves.values():
            each.tell("reopen")

    def kill(self) -> None:
        for each in self._halves.values():
            each.kill()

    def start(self) -> None:
        for each in self._halves.values():
            each.start()


class LocalServer:
    """Files, written as KumoMTA does: beside, then renamed."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        for name in ("meta", "data"):
            (spool / name / "new").mkdir(parents=True)
            (spool / name / "data").mkdir()

    def put(self, half: str, number: int, seed: int, size: int) -> None:
        path = self._path(half, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = self._spool / half / "new" / "staged"
        staged.write_bytes(value(seed, size))
        staged.rename(path)

    def delete(self, half: str, number: int) -> None:
        self._path(half, number).unlink(missing_ok=True)

    def flush(self) -> None:
        """Prune the directories that are empty, as KumoMTA does now and then."""
        for half in ("meta", "data"):
            for path in sorted((self._spool / half / "data").rglob("*"), reverse=True):
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()

    def restart(self) -> None:
        self.flush()

    def kill(self) -> None:
        return

    def start(self) -> None:
        return

    def _path(self, half: str, number: int) -> Path:
        return self._spool / half / path_of(number.to_bytes(16, "big"))


class EpochOver(Exception):
    """The epoch ended while a base for it was taken; the base is given up."""


@dataclass
class BaseTaken:
    """A base and what the spool held when it was taken."""

    base: Base
    state: State


class Protected:
    """One spool, its writer, a vault that can fail, and the loop's stream, driven by hand."""

    def __init__(
        self, folder: Path, kind: Kind = "rocksdb", *, backlog: int = 1 << 30, spool_of: "Protected | None" = None
    ) -> None:
        """Given a folder and the kind of spool; or another one, whose spool and its writer are used again."""
        self.made: Bench = bench(folder)
        self.spool = spool_of.spool if spool_of else folder / "spool"
        self._owns_server = spool_of is None
        if spool_of is not None:
            self.server = spool_of.server
        else:
            self.server = RocksServer(self.spool) if kind == "rocksdb" else LocalServer(self.spool)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.store = FaultyStore(self.made.vault.store)
        self.vault = Vault(self.store, self.made.vault.id, self.made.vault.recipients)
        self.plan = Plan(
            version=1,
            site="primary",
            vault=VaultPlan(str(folder / "vault")),
            state=str(self.made.state),
            components=Components(
                spool=SpoolPlan(str(self.spool / "meta"), str(self.spool / "data")), logs=LogsPlan((str(self.logs),))
            ),
            protect=ProtectPlan(every=0.01, heartbeat=1e9, backlog=backlog),
        )
        self.time = BEGUN
        self.state: State = spool_of.state if spool_of else ({}, {})
        self.states: dict[tuple[int, int], State] = {}
        self.bases: dict[str, BaseTaken] = {}
        self.said: list[str] = []
        self.board = Board(Figures("primary", 1, "", ""))
        self.stream = self._new_stream()

    def clock(self) -> datetime:
        self.time += timedelta(milliseconds=10)
        return self.time

    def accept(self, number: int, seed: int, size: int = 200) -> None:
        """A message comes in: its body, then its metadata."""
        self._put("data", number, seed, size)
        self._put("meta", number, seed + 1, 60)

    def put_off(self, number: int, seed: int) -> None:
        """A message is tried in vain: its metadata is written again."""
        self._put("meta", number, seed, 80)

    def finish_message(self, number: int) -> None:
        """A message leaves: its body goes, then its metadata."""
        for half, state in (("data", self.state[1]), ("meta", self.state[0])):
            self.server.delete(half, number)
            state.pop(number.to_bytes(16, "big"), None)

    def round(self, *, wait: float = 5.0) -> None:
        """One round of the loop; the vault has what was offered, unless it fails, or `wait` is 0."""
        self.stream.round()
        if wait:
            self.stream.acknowledge(wait)

    def remember(self, stream: Stream) -> None:
        """The spool was read: note what it holds under the number of the newest segment."""
        writer = stream._writer
        if writer is not None:
            self.states[writer.epoch, writer.next - 1] = self.copied()

    def copied(self) -> State:
        return dict(self.state[0]), dict(self.state[1])

    def base(self, meanwhile: Callable[[str], None] = lambda _moment: None) -> BaseTaken | None:
        """Take a base where one is due; `meanwhile` is called at each moment of it."""
        due = self.stream.base_due()
        return None if due is None else self.take_base(due.epoch, due.begin, meanwhile)

    def take_base(self, epoch: int, begin: int, meanwhile: Callable[[str], None]) -> BaseTaken:
        whole: list[int] = []
        held: list[State] = []

        listed = Listed() if isinstance(self.server, LocalServer) else None

        def join() -> StreamJoin:
            meanwhile("stored")
            self.stream.expect(taken_in(listed.write(self.made.state)) if listed else ())
            number = self.stream.number_of_next_round(epoch)
            if number is None:
                raise EpochOver
            whole.append(number)
            meanwhile("joined")
            return StreamJoin(epoch, begin, number)

        class Observed(SpoolComponent):
            def capture(observed):  # noqa: N805
                meanwhile("begun")
                held.append(self.copied())
                return super().capture()

        components = [Observed(self.plan, self.clock), LogsComponent(self.plan, self.clock)]
        with begin_backup(self.made.vault, self.made.key, self.made.state, self.clock, quiet) as session:
            base = take_base(session, components, join, listed.of if listed else lambda capture: capture)
        meanwhile("committed")
        section = base.point.section("spool")
        assert section is not None
        taken = base.point.taken.isoformat()
        self.stream.base_stored(epoch, BaseFacts(base.point.id, taken, section.size, whole[0]))
        self.bases[base.point.id] = BaseTaken(base, held[0])
        return self.bases[base.point.id]

    def crash(self) -> None:
        """kumodr is killed: nothing is finished, nothing is noted."""
        self.store.open_gate.set()
        self.stream._shipper.stop()
        self.stream._close_source()
        self.stream = self._new_stream()

    def stop(self) -> None:
        """kumodr is stopped and started again."""
        self.stream.finish(2.0)
        self.stream = self._new_stream()

    def close(self) -> None:
        self.store.open_gate.set()
        self.stream._shipper.stop()
        self.stream._close_source()
        if self._owns_server:
            self.server.kill()

    def recoverable(self) -> tuple[State, tuple[int, int]] | None:
        """What base and stream in the vault give, and (epoch, number) of its last segment; None without a base."""
        found = survey(self.made.vault, {})
        assert not found.problems, found.problems
        trust = trust_of(self.made.vault, {})
        for point in sorted(found.points, key=lambda each: -each.sequence):
            join = point.stream
            if point.section("spool") is None or join is None:
                continue
            state = tuple(dict(each) for each in self.bases[point.id].state)
            listed = epochs(self.made.vault, "primary").get(join.epoch)
            reach, problems = extent(self.made.vault, listed, join.begin, trust) if listed else (None, ())
            assert not problems, problems
            if reach is None or reach.last < join.whole:
                return state, (join.epoch, 0)
            reading = Reading(self.made.vault, listed, join.begin, reach.last, trust, self.made.identities)
            for segment in reading:
                content = segment.content.unpacked()
                for kept, changes in zip(state, (content.meta, content.data), strict=True):
                    for each, held in changes.items():
                        if held is None:
                            kept.pop(each, None)
                        else:
                            kept[each] = held
            assert not reading.problems, reading.problems
            return state, (join.epoch, reach.last)
        return None

    def _put(self, half: str, number: int, seed: int, size: int) -> None:
        self.server.put(half, number, seed, size)
        self.state[half == "data"][number.to_bytes(16, "big")] = value(seed, size)

    def _new_stream(self) -> Stream:
        stream = Stream(self.plan, self.vault, self.made.key, self.board, self.clock, self.said.append)
        read = stream._read_round

        def read_and_remember() -> None:
            before = newest(stream)
            read()
            if newest(stream) != before:  # a round that could not read seals nothing, and what the spool holds is newer
                self.remember(stream)

        stream._read_round = read_and_remember  # type: ignore[method-assign]
        stream.start()
        return stream


@contextlib.contextmanager
def under_protection(folder: Path, *, backlog: int = 1 << 30, kind: Kind = "rocksdb") -> Iterator[Protected]:
    made = Protected(folder, kind, backlog=backlog)
    try:
        made.round()
        made.accept(1, 1)
        made.base()
        made.round()
        assert made.board.now.state == "protected"
        yield made
    finally:
        made.close()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the loop ask a vault that failed again at once."""
    monkeypatch.setattr(shipper, "_FIRST_PAUSE", 0.002)
    monkeypatch.setattr(shipper, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(stream_module, "_PAUSES", (0.002,))


def backlog_of(protected: Protected) -> list[Path]:
    return sorted((protected.made.state / "backlog").glob("*.seg"))


def is_well(protected: Protected) -> None:
    """Go on until everything is protected, and compare."""

    def well() -> bool:
        protected.round()
        protected.base()
        protected.round()
        return protected.board.now.state == "protected"

    wait_for("protection", well)
    found = protected.recoverable()
    assert found is not None
    assert found[0] == protected.copied()
    assert backlog_of(protected) == []
    for epoch, listed in epochs(protected.made.vault, "primary").items():
        _, problems = extent(protected.made.vault, listed, 1, trust_of(protected.made.vault, {}))
        assert problems == (), f"epoch {epoch} is broken"


def newest(stream: Stream) -> tuple[int, int] | None:
    """The epoch and the number of the next segment; None before there is an epoch."""
    writer = stream._writer
    return None if writer is None else (writer.epoch, writer.next)
