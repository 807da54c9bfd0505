"""What `kumodr check` says of the loop: never run, running, in trouble, ended, silent."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kumodr.clock import text_of_time
from kumodr.plan.model import Components, Plan, VaultPlan
from kumodr.protect.figures import Figures, publish
from kumodr.recover.readiness import protect_findings

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def plan(state: Path) -> Plan:
    return Plan(version=1, site="primary", vault=VaultPlan("/v"), state=str(state), components=Components())


def figures(state: str, *, ago: float, trouble: str | None = None) -> Figures:
    time = text_of_time(NOW - timedelta(seconds=ago))
    return Figures("primary", 1, time, time, state=state, trouble=trouble, recoverable_until=time)


@pytest.mark.parametrize(
    ("published", "level", "words"),
    [
        (figures("protected", ago=1), "good", "the vault has all of it up to 2026-11-24T11:59:59"),
        (figures("protected", ago=60), "bad", "has not run since 2026-11-24T11:59:00"),
        (figures("stopped", ago=1), "bad", "has not run since"),
        (figures("waiting for a base", ago=1), "warning", "waiting for a base"),
        (figures("behind", ago=1, trouble="the vault is full"), "bad", "the vault is full"),
    ],
)
def test_the_loop_is_judged_by_its_own_word_and_its_age(
    tmp_path: Path, published: Figures, level: str, words: str
) -> None:
    publish(tmp_path, published)
    (finding,) = protect_findings(plan(tmp_path), lambda: NOW)
    assert finding.level == level
    assert words in finding.text
    assert (finding.remedy != "") == (level != "good")


def test_a_loop_that_never_ran_is_a_warning(tmp_path: Path) -> None:
    (finding,) = protect_findings(plan(tmp_path), lambda: NOW)
    assert (finding.level, "kumodr protect" in finding.remedy) == ("warning", True)
