"""The whole loop against a spool that does what it wants, a vault that fails, and kills of everything.

After every step: what the vault gives back is exactly what the spool held when its newest segment was read; nothing
that left comes back, nothing that stayed is missing. When all is well again, it is what the spool holds now.
"""

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from protected import EpochOver, Kind, Protected, hurry
from servers import wait_for

from kumodr import errors

NUMBERS = st.integers(1, 12)
SEEDS = st.integers(0, 1 << 30)
SIZES = st.sampled_from([0, 50, 400, 5_000, 40_000])


class Loop(RuleBasedStateMachine):
    kind: ClassVar[Kind]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="kumodr-machine-"))
        self.protected = Protected(self.folder, self.kind, backlog=60_000)

    @initialize()
    def begin(self) -> None:
        self.protected.round()

    @rule(number=NUMBERS, seed=SEEDS, size=SIZES)
    def accept(self, number: int, seed: int, size: int) -> None:
        self.protected.accept(number, seed, size)

    @rule(number=NUMBERS, seed=SEEDS)
    def put_off(self, number: int, seed: int) -> None:
        if number.to_bytes(16, "big") in self.protected.state[0]:
            self.protected.put_off(number, seed)

    @rule(number=NUMBERS)
    def finish_message(self, number: int) -> None:
        self.protected.finish_message(number)

    @rule(seed=SEEDS)
    def burst(self, seed: int) -> None:
        for number in range(20, 60):
            self.protected.accept(number, seed + number, 900)
        for number in range(20, 60):
            if (seed + number) % 3:
                self.protected.finish_message(number)

    @rule()
    def flush(self) -> None:
        self.protected.server.flush()

    @rule()
    def server_restarts(self) -> None:
        self.protected.server.restart()

    @rule()
    def server_is_killed(self) -> None:
        self.protected.server.kill()
        self.protected.server.start()

    @rule()
    def kumodr_is_killed(self) -> None:
        self.protected.crash()

    @rule()
    def kumodr_is_restarted(self) -> None:
        self.protected.stop()

    @rule(faults=st.lists(st.sampled_from(["before", "after", "cut", None]), min_size=1, max_size=3))
    def vault_stumbles(self, faults: list[str | None]) -> None:
        self.protected.store.faults = faults

    @rule()
    def vault_goes(self) -> None:
        self.protected.store.broken = errors.StoreUnavailable("the vault is gone")

    @rule()
    def vault_comes_back(self) -> None:
        self.protected.store.broken = None

    @rule()
    def round(self) -> None:
        self.protected.round(wait=0.0 if self.protected.store.broken else 5.0)

    @rule()
    def long_round(self) -> None:
        """The vault has not answered for long when the next segment comes."""
        for _ in range(2):
            self.protected.round(wait=0.05)

    @rule()
    def a_day_passes(self) -> None:
        """A planned base is due: the stream goes on beneath it."""
        self.protected.time += timedelta(days=1)

    @precondition(lambda self: self.protected.store.broken is None)
    @rule(writes=st.lists(st.tuples(st.sampled_from(["begun", "stored", "joined"]), NUMBERS, SEEDS), max_size=4))
    def base(self, writes: list[tuple[str, int, int]]) -> None:
        """A base where one is due; mail comes and goes, and rounds are read, at every moment of it."""
        if self.protected.stream.base_due():  # when, depends on threads: no precondition may
            self._take_base(writes)

    def _take_base(self, writes: list[tuple[str, int, int]]) -> None:
        def meanwhile(moment: str) -> None:
            for when, number, seed in writes:
                if when != moment:
                    continue
                if seed % 2:
                    self.protected.accept(number, seed)
                else:
                    self.protected.finish_message(number)
                if seed % 3 and moment != "joined":
                    self.protected.round()

        due = self.protected.stream.base_due()
        if due is not None:
            try:
                self.protected.take_base(due.epoch, due.begin, meanwhile)
            except EpochOver:
                assert self.protected.stream.number_of_next_round(due.epoch) is None

    @invariant()
    def what_the_vault_gives_is_what_was(self) -> None:
        protected = self.protected
        found = protected.recoverable()
        if found is None:
            return
        state, (epoch, number) = found
        if number:
            assert state == protected.states[epoch, number]

    def teardown(self) -> None:
        try:
            self.protected.store.broken = None
            self.protected.store.faults = []

            def well() -> bool:
                self.protected.round()
                self._take_base([])
                self.protected.round()
                return self.protected.stream._joined and not self.protected.stream._shipper.waiting()

            wait_for("protection", well, 20)
            found = self.protected.recoverable()
            assert found is not None
            assert found[0] == self.protected.copied()
        finally:
            self.protected.close()
            shutil.rmtree(self.folder)


class RocksLoop(Loop):
    kind: ClassVar[Kind] = "rocksdb"


class LocalLoop(Loop):
    kind: ClassVar[Kind] = "localdisk"


@pytest.mark.parametrize("machine", [RocksLoop, LocalLoop])
def test_whatever_happens_the_vault_gives_what_was(machine: type[Loop], monkeypatch: pytest.MonkeyPatch) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    hurry(monkeypatch)
    monkeypatch.setattr("kumodr.protect.local_source._SHARE", 1.0)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=50,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
