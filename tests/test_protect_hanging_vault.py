"""A vault that hangs when the loop starts, or begins a new epoch: everything else goes on."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from protected import Protected, backlog_of, hurry, is_well, under_protection
from servers import free_port, wait_for

from kumodr import errors
from kumodr.protect import stream
from kumodr.protect.agent import Agent
from kumodr.protect.figures import published


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Protected]:
    with under_protection(tmp_path) as made:
        yield made


def hang(protected: Protected) -> None:
    protected.store.hangs = True
    protected.store.open_gate.clear()


def answer(protected: Protected) -> None:
    protected.store.hangs = False
    protected.store.open_gate.set()
    wait_for("the answer", lambda: not quick_round(protected) and not is_asking(protected.stream))


def is_asking(asking: stream.Stream) -> bool:
    return bool(asking._asked or asking._asked_epoch)


def quick_round(protected: Protected) -> None:
    begun = time.monotonic()
    protected.round(wait=0.01)
    assert time.monotonic() - begun < 2, "the vault was waited for"


@pytest.mark.parametrize("last", ["crash", "stop"])
def test_reading_goes_on_while_the_vault_hangs_at_the_start(
    protected: Protected, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Logs come and go meanwhile; what was written to them is there in the end, without a new base."""
    monkeypatch.setattr(stream, "_IN_MEMORY", 1)
    protected.crash()
    hang(protected)
    protected.accept(2, 2)
    until = protected.board.now.recoverable_until
    for number in range(3, 9):
        if number > 3:
            protected.server.flush()
        protected.accept(number, number)
        quick_round(protected)
        assert protected.board.now.state == "behind"
        assert protected.board.now.trouble == "the vault does not answer"
        assert protected.stream.base_due() is None
    assert protected.board.now.recoverable_until == until, "nothing was acknowledged since"
    assert len(backlog_of(protected)) >= 5
    assert protected.board.now.messages_at_risk is None, "whether the vault has what it had nobody can tell"
    if last == "crash":
        protected.stream._close_source()
        protected.stream = protected._new_stream()
    else:
        begun = time.monotonic()
        protected.stream.finish(0.1)
        assert time.monotonic() - begun < 5
        protected.stream = protected._new_stream()
    protected.accept(9, 9)
    quick_round(protected)
    answer(protected)
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1}
    assert protected.board.now.trouble is None


def test_nothing_is_shipped_before_the_vault_confirmed_what_is_in_front_of_it(
    protected: Protected, tmp_path: Path
) -> None:
    """A vault that was brought back from an older copy hangs first: nothing is put behind the gap."""
    protected.accept(2, 2)
    protected.round()
    last = sorted((tmp_path / "vault" / "stream" / "primary" / "00000001").glob("*.seg"))[-1]
    protected.crash()
    hang(protected)
    for number in range(3, 6):
        protected.accept(number, number)
        quick_round(protected)
    last.unlink()
    answer(protected)
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "state lost": 1}
    assert not last.with_name(f"{int(last.stem) + 1:010d}.seg").exists()


def test_a_segment_that_was_stored_and_not_noted(protected: Protected, tmp_path: Path) -> None:
    """Where the vault answers it is passed over; where reading went on without knowing of it, a new base begins."""
    state = protected.made.state / "protect.json"
    for hangs in (False, True):
        kept = state.read_bytes()
        protected.accept(2 + hangs, 2)
        protected.round()
        protected.crash()
        state.write_bytes(kept)
        protected.crash()
        if hangs:
            hang(protected)
            protected.accept(4, 4)
            wait_for("reading", lambda: not quick_round(protected) and protected.stream._shipper.waiting())
            answer(protected)
        is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "state lost": 1}
    assert "not noted" in protected.board.now.rebases[-1].reason


def test_a_new_epoch_waits_for_its_number_and_the_loop_does_not(protected: Protected) -> None:
    (protected.made.state / "protect.json").unlink()
    protected.crash()
    hang(protected)
    for number in range(2, 5):
        protected.accept(number, number)
        quick_round(protected)
        assert protected.board.now.trouble == "the vault does not answer"
    answer(protected)
    is_well(protected)
    assert protected.board.now.epoch == 2


def test_the_vault_errs_at_the_start_and_then_hangs(protected: Protected) -> None:
    protected.store.broken = errors.StoreUnavailable("the vault is gone")
    protected.crash()
    protected.accept(2, 2)
    wait_for("its words", lambda: not quick_round(protected) and "is gone" in str(protected.board.now.trouble))
    wait_for("reading", lambda: not quick_round(protected) and bool(protected.stream._shipper.waiting()))
    hang(protected)
    protected.store.broken = None
    protected.accept(3, 3)
    quick_round(protected)
    answer(protected)
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1}


def test_figures_the_endpoint_and_the_stop_signal_go_on(protected: Protected, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    plan = replace(protected.plan, protect=replace(protected.plan.protect, every=0.05, metrics=address))
    protected.crash()
    hang(protected)
    agent = Agent(tmp_path / "none.yaml", plan, protected.vault, protected.made.key, protected.clock, lambda _: None)
    stop = threading.Event()
    loop = threading.Thread(target=agent.run, args=(stop,))
    loop.start()
    try:
        protected.accept(2, 2)
        wait_for("sealed mail", lambda: len(agent.stream._shipper.waiting()) > 0)
        rounds: set[str] = set()

        def goes_on() -> bool:
            figures = published(protected.made.state)
            rounds.add(figures.time if figures else "")
            return len(rounds) > 5

        wait_for("more rounds", goes_on)
        assert "kumodr_protected 0.0" in httpx.get(f"http://{address}/metrics").text
    finally:
        begun = time.monotonic()
        stop.set()
        loop.join(30)
        took = time.monotonic() - begun
        protected.store.hangs = False
        protected.store.open_gate.set()
    assert took < 12
    assert published(protected.made.state).state == "stopped"
    assert len(backlog_of(protected)) >= 1
    protected.crash()
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1}
