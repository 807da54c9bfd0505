"""How protection stands: judged by the loop's word only while it runs, else by the vault; what is wrong comes first."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kumodr.clock import text_of_time
from kumodr.plan.model import Objectives
from kumodr.protect.figures import Figures, place_of_processes
from kumodr.recover.ranges import Range
from kumodr.recover.standing import Look, Standing, standing
from kumodr.vault.facts import Point, Section
from kumodr.vault.proofs import Result

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def until(seconds: float) -> Range:
    """A stream whose newest segment is that old."""
    moment = NOW - timedelta(seconds=seconds)
    return Range("primary", 1, ("primary-1",), NOW - timedelta(days=1), moment, 1, 9, 9, 0)


def figures(state: str, round_ago: float, recoverable_ago: float, trouble: str | None = None) -> Figures:
    time = text_of_time(NOW - timedelta(seconds=round_ago))
    recoverable = text_of_time(NOW - timedelta(seconds=recoverable_ago))
    return Figures("primary", 1, time, time, state=state, trouble=trouble, recoverable_until=recoverable)


def point(number: int, ago: timedelta, *components: str, failures: dict[str, str] | None = None) -> Point:
    sections = tuple(Section(name, (), (), 1, 1, {}) for name in components)
    return Point(f"primary-{number}", "primary", number, NOW - ago, sections, failures or {}, None, "key", f"h{number}")


def result(number: int, level: str, ago: timedelta, *, good: bool = True, manifest: str = "") -> Result:
    return Result(f"primary-{number}", manifest or f"h{number}", level, NOW - ago, good)


BASE = point(1, timedelta(hours=3), "spool", "logs", "ledger")
PROVED = (result(1, "restore", HOUR),)


def stands(
    said: Figures | None,
    newest: Range | None,
    points: Sequence[Point] = (BASE,),
    results: Sequence[Result] = PROVED,
    components: Sequence[str] = ("spool", "logs", "ledger"),
    unread: str | None = None,
) -> Standing:
    ranges = (newest,) if newest else ()
    seen = Look(
        tuple(components), Objectives(), tuple(points), ranges, results=tuple(results), figures=said, unread=unread
    )
    return standing(seen, NOW)


def test_a_site_at_rest_is_as_new_as_the_last_round() -> None:
    found = stands(figures("protected", 1, 1), until(25))
    assert (found.running, found.age, found.problems, found.unproved) == (True, 1, (), ())


def test_a_loop_that_ended_is_not_believed_and_the_vault_says_since_when_nothing_is_protected() -> None:
    for said, what in (
        (figures("protected", 60, 1), "does not run, or hangs"),
        (figures("stopped", 1, 1), "was stopped"),
    ):
        found = stands(said, until(25))
        assert (found.running, found.age) == (False, 25)
        (problem,) = found.problems
        assert problem.startswith(f"`kumodr protect` {what}, last round at 2026-11-24 11:59:")
        assert problem.endswith(": what came in after 2026-11-24 11:59:35 UTC is in no copy; start it again")


def test_a_slow_loop_is_given_five_rounds() -> None:
    assert stands(replace(figures("protected", 60, 60), every=30.0), until(60)).running


def test_a_killed_process_is_seen_at_once_but_only_where_its_number_means_something() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    place = place_of_processes()
    assert place
    said = replace(figures("protected", 1, 1), process=dead.pid, place=place)
    assert "was killed" in stands(said, until(2)).problems[0]
    assert stands(replace(said, process=os.getpid()), until(2)).running
    assert stands(replace(said, place="another machine"), until(2)).running


def test_another_machine_judges_by_the_vault_alone() -> None:
    found = stands(None, until(400))
    assert (found.running, found.age, found.components[0].problem) == (False, 400, "older than the objective")
    (problem,) = found.problems
    assert "what came in after 2026-11-24 11:53:20 UTC is in no copy; run `kumodr protect`" in problem
    assert stands(None, until(200)).problems == ()


def test_points_alone_are_protection_too() -> None:
    found = stands(None, None, [point(1, timedelta(minutes=4), "spool")], components=["spool"])
    assert (found.age, found.problems, found.base and found.base.id) == (240, (), "primary-1")
    assert stands(None, None, [point(1, HOUR, "spool")], components=["spool"]).problems


def test_lost_protection_and_trouble_come_with_their_reason() -> None:
    lost = stands(figures("lost", 1, 20, "the backlog is full"), until(20))
    assert lost.problems[0].startswith("protection is lost (the backlog is full): what came in after")
    behind = stands(figures("behind", 1, 20, "the vault is gone"), until(20))
    assert behind.problems == ("behind: the vault is gone",)


def test_the_first_base_is_waited_for() -> None:
    said = replace(figures("waiting for a base", 1, 1), recoverable_until=None)
    found = stands(said, None, [], ())
    assert found.age is None
    assert found.problems[0] == "spool: never stored; its first base is being taken"


def test_what_a_wrong_clock_says_is_not_believed() -> None:
    assert stands(None, until(-7200), []).age is None
    assert stands(None, until(-2)).age == 0


def test_nothing_at_all_is_no_age() -> None:
    found = stands(None, None, [], (), [])
    assert (found.age, found.base, found.unproved) == (None, None, ())


def test_the_ledger_is_as_new_as_the_logs_in_the_stream() -> None:
    old = point(1, timedelta(days=2), "spool", "logs", "ledger")
    assert [each.problem for each in stands(figures("protected", 1, 1), until(1), [old]).components] == [None] * 3


def test_why_a_component_was_not_stored_is_said() -> None:
    points = [point(1, timedelta(days=2), "redis"), point(2, HOUR, failures={"redis": "Redis does not answer"})]
    (problem,) = stands(None, None, points, components=["redis"]).problems
    assert problem == (
        "redis: older than the objective (last try: Redis does not answer); run `kumodr backup redis`"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("results", "bad"),
    [
        ([result(1, "deep", HOUR, good=False)], True),
        ([result(1, "shallow", HOUR), result(1, "deep", 2 * HOUR, good=False)], True),
        ([result(1, "deep", HOUR), result(1, "shallow", 2 * HOUR, good=False)], False),
        ([result(1, "restore", HOUR), result(1, "deep", 2 * HOUR, good=False)], False),
        ([result(1, "deep", HOUR, good=False, manifest="of another point of this name")], False),
        ([result(2, "deep", HOUR, good=False)], False),
    ],
)
def test_a_copy_that_was_found_bad_is_no_copy_until_a_look_as_thorough_finds_it_good(
    results: list[Result], bad: bool
) -> None:
    found = stands(figures("protected", 1, 1), until(1), results=results)
    assert (found.components[0].problem is not None) == bad
    if bad:
        assert found.problems[0].startswith("spool: found bad by `verify --deep` at 2026-11-24 1")
        assert "run `kumodr backup spool`" in found.problems[0]


def test_the_freshness_of_proofs_counts_by_level() -> None:
    def unproved(*results: Result) -> list[str]:
        return [each.split(":")[0] for each in stands(None, until(1), results=results).unproved]

    day = timedelta(days=1)
    deep, restore = "last proved good by deep", "last proved good by restore"
    assert unproved() == [deep, restore]
    assert unproved(result(1, "deep", day)) == [restore]
    assert unproved(result(1, "restore", day)) == []
    assert unproved(result(1, "restore", 9 * day)) == [deep]
    assert unproved(result(1, "deep", day), result(1, "restore", 36 * day)) == [restore]
    assert unproved(result(1, "restore", day, good=False)) == [deep, restore]


def test_figures_that_cannot_be_read_are_not_taken_for_none() -> None:
    found = stands(None, until(1), unread="Permission denied")
    assert found.problems[0].startswith("how `kumodr protect` stands cannot be read (Permission denied)")
