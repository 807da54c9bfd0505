"""How protection stands: judged by the loop's word only while it runs, else by the vault."""

from datetime import UTC, datetime, timedelta

from kumodr.clock import text_of_time
from kumodr.protect.figures import Figures
from kumodr.recover.ranges import Range
from kumodr.recover.standing import Standing, standing

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PROVED = {"deep": NOW - timedelta(days=1), "restore": NOW - timedelta(days=1)}


def until(seconds: float) -> Range:
    """A stream whose newest segment is that old."""
    moment = NOW - timedelta(seconds=seconds)
    return Range("primary", 1, ("primary-1",), NOW - timedelta(days=1), moment, 1, 9, 9, 0)


def figures(state: str, round_ago: float, recoverable_ago: float, trouble: str | None = None) -> Figures:
    time = text_of_time(NOW - timedelta(seconds=round_ago))
    recoverable = text_of_time(NOW - timedelta(seconds=recoverable_ago))
    return Figures("primary", 1, time, time, state=state, trouble=trouble, recoverable_until=recoverable)


def stands(said: Figures | None, newest: Range | None, proofs: dict[str, datetime] | None = None) -> Standing:
    ranges = [newest] if newest else []
    return standing([], ranges, said, PROVED if proofs is None else proofs, 300, 1, NOW)


def test_a_site_at_rest_is_as_new_as_the_last_round() -> None:
    found = stands(figures("protected", 1, 1), until(25))
    assert (found.running, found.age, found.problems) == (True, 1, ())


def test_a_loop_that_ended_is_not_believed() -> None:
    for said in (figures("protected", 60, 1), figures("stopped", 1, 1)):
        found = stands(said, until(25))
        assert (found.running, found.age) == (False, 25)
        assert "start it again" in found.problems[0]


def test_another_machine_judges_by_the_vault_alone() -> None:
    found = stands(None, until(400))
    assert (found.running, found.age) == (False, 400)
    assert found.problems == ("the newest recoverable message is older than the objective; run `kumodr protect`",)


def test_lost_protection_and_trouble_come_with_their_reason() -> None:
    lost = stands(figures("lost", 1, 20, "the backlog is full"), until(20))
    assert lost.problems == ("protection is lost: the backlog is full; new mail is in no copy",)
    behind = stands(figures("behind", 1, 20, "the vault is gone"), until(20))
    assert behind.problems == ("behind: the vault is gone",)


def test_what_a_wrong_clock_says_is_not_believed() -> None:
    assert stands(None, until(-7200)).age is None
    assert stands(None, until(-2)).age == 0


def test_nothing_at_all_is_no_age() -> None:
    assert stands(None, None).age is None
