"""kill -9 of the command in every part of every step, before its work and between its effect and its record."""

from pathlib import Path
from typing import Any

import pytest
from run_child import Moment, go_on, in_child, start

from kumodr.runbooks import registry
from kumodr.runbooks.runs import listed, one
from kumodr.runbooks.state import State, state_in
from kumodr.runbooks.step import Context, Outcome, Runbook, Step, Words


class World:
    """Effects on disk, counted: a line in a file for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def did(self, name: str) -> None:
        with open(self.folder / name, "a") as file:
            file.write("x\n")

    def times(self, name: str) -> int:
        file = self.folder / name
        return len(file.read_text().splitlines()) if file.exists() else 0


def steps_of_all_kinds(world: World) -> Runbook:
    """Return a runbook with every kind of step: recognised, repeatable, neither, asking, failing once, undone."""

    def recognised(_context: Context) -> Outcome:
        world.did("recognised")
        return Outcome("made it", {"where": "here"})

    def recognises(_context: Context) -> Outcome | None:
        return Outcome("it is there", {"where": "here"}) if world.times("recognised") else None

    def uses(context: Context) -> Outcome:
        assert context.facts["where"] == "here"
        (world.folder / "set").write_text("value")
        return Outcome("set")

    def once(_context: Context) -> Outcome:
        world.did("once")
        return Outcome("it happened")

    def fails_once(_context: Context) -> Outcome:
        from kumodr import errors

        world.did("tries")
        if world.times("tries") == 1:
            raise errors.StepFailed("not yet")
        return Outcome("at last")

    def proved(_context: Context) -> Outcome:
        assert (world.folder / "set").read_text() == "value"
        return Outcome("it is so")

    words = Words("does it")
    steps = (
        Step("recognised", "a", recognised, words, check=recognises),
        Step("repeatable", "b", uses, words, proof=proved, asks=lambda _context: "Really?"),
        Step("once", "c", once, words, repeatable=False),
        Step("tries", "d", fails_once, words, on_failure="retry"),
    )
    return Runbook("every-kind", "every kind of step", steps)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return state_in(tmp_path / "state", "primary")


def made_known(runbook: Runbook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "builders", lambda: {runbook.name: lambda _parameters: runbook})


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_anywhere_and_resumed_ends_as_one_that_was_not(
    moment: Moment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        world, state = World(folder / "world"), state_in(folder / "state", "primary")
        runbook = steps_of_all_kinds(world)
        made_known(runbook, monkeypatch)
        trace = folder / "trace"
        code = in_child(lambda runbook=runbook, state=state: start(state, runbook, {}), trace, (number, moment))
        killed = code == -9
        if not killed:
            assert code == 0, trace.read_text()
            break
        runs = listed(state)
        run = runs[0]
        assert len(runs) == 1
        assert run.standing == "unfinished"
        broken_off = run.last is not None and run.last.phase == "begin"
        before = world.times("once")
        skip: dict[str, Any] = {"after_failure": "skip" if before else "again"} if broken_off else {}
        code = in_child(lambda state=state, run=run, skip=skip: go_on(state, run, **skip), trace)
        assert code == 0, (number, moment, trace.read_text() if trace.exists() else code)
        ended = one(state, run.request.run)
        assert ended.standing == "done"
        assert [entry.number for entry in ended.entries] == list(range(1, len(ended.entries) + 1))
        assert world.times("recognised") == world.times("once") == 1, (number, moment)
        assert world.times("tries") in (2, 3)
        assert (world.folder / "set").read_text() == "value"
    assert number == 13


def test_killed_again_and_again_it_still_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, state = World(tmp_path / "world"), state_in(tmp_path / "state", "primary")
    runbook = steps_of_all_kinds(world)
    made_known(runbook, monkeypatch)
    trace = tmp_path / "trace"
    assert in_child(lambda: start(state, runbook, {}), trace, (2, "after")) == -9
    kills = 0
    for _ in range(40):
        run = listed(state)[0]
        broken_off = run.last is not None and run.last.step == "once"
        skip: dict[str, Any] = {"after_failure": "skip" if world.times("once") else "again"} if broken_off else {}
        code = in_child(lambda run=run, skip=skip: go_on(state, run, **skip), trace, (3, "before"))
        if code == 0:
            break
        assert code == -9, trace.read_text()
        kills += 1
    assert kills > 3
    assert listed(state)[0].standing == "done"
    assert world.times("recognised") == world.times("once") == 1
