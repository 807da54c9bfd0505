"""The loop's figures say what the vault acknowledged, never what was attempted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from protected import BEGUN, Protected, hurry
from servers import wait_for

from kumodr import errors
from kumodr.clock import system_clock, text_of_time, time_of_text
from kumodr.protect.agent import Agent
from kumodr.protect.figures import Figures, publish, published
from kumodr.vault.segment import name_of
from kumodr.vault.store import Piece


@pytest.fixture
def protected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Protected]:
    hurry(monkeypatch)
    made = Protected(tmp_path)
    yield made
    made.close()


def test_without_a_base_nobody_can_tell_what_is_at_risk(protected: Protected) -> None:
    protected.round()
    for number in (1, 2):
        protected.accept(number, number)
        protected.round()
    figures = protected.board.now
    assert (figures.state, figures.recoverable_until, figures.messages_at_risk) == ("waiting for a base", None, None)
    assert figures.accepted_messages == 2, "the vault has them, but nothing that they go on top of"
    protected.base()
    protected.round()
    figures = protected.board.now
    assert (figures.state, figures.messages_at_risk, figures.bytes_at_risk) == ("protected", 0, 0)
    assert figures.recoverable_until is not None


def test_a_base_does_not_count_before_the_segments_that_make_it_whole(
    protected: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait in the backlog, kumodr is killed and starts again, and the vault takes only the first of them."""
    protected.round()
    protected.store.broken = errors.StoreUnavailable("the vault is gone")
    for number in (1, 2):
        protected.accept(number, number)
        protected.round(wait=0.01)
    base = protected.base()
    assert base is not None
    assert base.base.point.stream is not None
    whole = base.base.point.stream.whole
    protected.accept(3, 3)
    protected.round(wait=0.01)
    protected.stream._keep(protected.stream._shipper.spill())
    protected.crash()
    put, refused = protected.made.vault.store.put_if_absent, name_of("primary", 1, whole, whole)

    def refuse(name: str, pieces: Sequence[Piece]) -> bool:
        if name == refused:
            raise errors.StoreUnavailable("the vault does not take it")
        return put(name, pieces)

    monkeypatch.setattr(protected.made.vault.store, "put_if_absent", refuse)
    protected.store.broken = None
    wait_for("all before", lambda: not protected.round(wait=0.01) and protected.board.now.acknowledged == whole - 1)
    figures = protected.board.now
    assert (figures.state, figures.recoverable_until, figures.messages_at_risk) == ("behind", None, None)
    monkeypatch.undo()
    wait_for("protection", lambda: not protected.round() and protected.board.now.state == "protected")
    found = protected.recoverable()
    assert found is not None
    assert found[0] == protected.copied()
    until = protected.board.now.recoverable_until
    assert until is not None
    assert time_of_text(until) > BEGUN


def test_after_a_lost_epoch_the_old_state_stays_and_grows_old(protected: Protected) -> None:
    protected.round()
    protected.accept(1, 1)
    protected.base()
    protected.round()
    until = protected.board.now.recoverable_until
    assert until is not None
    protected.stream._give_up("spool", "a test says so")
    protected.accept(2, 2)
    protected.round()
    figures = protected.board.now
    assert (figures.state, figures.recoverable_until) == ("waiting for a base", until)
    assert figures.messages_at_risk is None
    protected.base()
    protected.round()
    assert str(protected.board.now.recoverable_until) > until
    assert protected.board.now.rebase_counts == {"first": 1, "spool": 1}


def test_when_it_is_stopped_the_figures_are_those_of_the_end(protected: Protected) -> None:
    protected.round()
    protected.accept(1, 1)
    protected.base()
    protected.round()
    protected.store.broken = errors.StoreUnavailable("the vault is gone")
    protected.accept(2, 2, 30_000)
    protected.stream.finish(0.01)
    figures = protected.board.now
    waiting = sum(path.stat().st_size for path in (protected.made.state / "backlog").iterdir())
    assert (figures.state, figures.messages_at_risk, figures.backlog_bytes) == ("stopped", 1, waiting)
    assert waiting > 0


def test_figures_of_another_vault_do_not_count(protected: Protected, tmp_path: Path) -> None:
    state = protected.made.state
    known = text_of_time(BEGUN)
    figures = Figures("primary", 1, known, known, recoverable_until=known, components={"config": known})
    publish(state, replace(figures, vault="another"))
    assert published(state) is not None
    assert published(state, protected.vault.id) is None
    agent = Agent(tmp_path / "plan", protected.plan, protected.vault, protected.made.key, system_clock, print)
    assert (agent.board.now.recoverable_until, dict(agent.board.now.components)) == (None, {})
    publish(state, replace(figures, vault=protected.vault.id))
    agent = Agent(tmp_path / "plan", protected.plan, protected.vault, protected.made.key, system_clock, print)
    assert (agent.board.now.recoverable_until, dict(agent.board.now.components)) == (known, {"config": known})
