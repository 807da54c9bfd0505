"""Prune: whatever the points, policies, interruptions and backups beside it, what stays is whole and comes back."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pruned_site import COMPONENTS, DAY, LAST_ONE, RETENTIONS, AgedStore, Site, live
from streams import Stream
from vaults import START, Bench, capture_of, quiet

from kumodr import errors
from kumodr.plan.model import KeepPlan, RetentionPlan
from kumodr.vault.backup import begin_backup
from kumodr.vault.facts import Point
from kumodr.vault.inventory import inventory
from kumodr.vault.keys import NodeKey, generate_identity
from kumodr.vault.marks import marks_of, name_of
from kumodr.vault.open import create_vault
from kumodr.vault.points import survey
from kumodr.vault.prune import apply_prune, plan_prune
from kumodr.vault.stream import listing
from kumodr.vault.verify import verify_deep


def site(folder: Path) -> Site:
    identity = generate_identity()
    url = f"memory://{uuid.uuid4()}"
    vault = create_vault(url, [identity.recipient], lambda: START)
    store = AgedStore(vault.store)
    store.put = {entry.name: START for entry in vault.store.entries("")}
    made = Bench(folder, replace(vault, store=store), identity, NodeKey.load_or_create(folder / "state", "primary"))
    return Site(made, store, Stream(made))


@pytest.fixture
def there(tmp_path: Path) -> Site:
    return site(tmp_path)


ANY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(ANY, max_examples=50)
@given(data=st.data())
def test_whatever_happens_what_stays_is_whole(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    live(
        site(tmp_path_factory.mktemp("any")),
        data,
        st.sampled_from(
            [
                "backup",
                "base",
                "segments",
                "prune",
                "prune",
                "prune dies",
                "prune locked",
                "begin",
                "commit",
                "die",
                "verify",
                "epoch",
            ]
        ),
        st.sampled_from([timedelta(minutes=5), timedelta(hours=6), DAY, 4 * DAY]),
        st.dictionaries(st.sampled_from(COMPONENTS), st.integers(0, 3), min_size=1),
        RETENTIONS,
    )


@settings(ANY, max_examples=100)
@given(data=st.data())
def test_backups_beside_prune_never_lose_what_they_use(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    live(
        site(tmp_path_factory.mktemp("beside")),
        data,
        st.sampled_from(["backup", "prune", "prune", "begin", "commit", "die", "prune dies"]),
        st.just(2 * DAY),
        st.fixed_dictionaries({"config": st.integers(0, 2)}),
        st.just(LAST_ONE),
    )


def test_a_point_goes_after_the_grace_and_when_its_node_knows(there: Site) -> None:
    first = there.backup({"config": 1})
    there.store.now += DAY
    there.backup({"config": 2})
    there.store.now += DAY
    marked = there.prune(LAST_ONE)
    assert marked.to_mark
    assert not marked.names
    there.store.now += 2 * DAY
    (waiting,) = there.prune(LAST_ONE).waiting
    assert "primary" in waiting.reason
    there.backup({"redis": 3})
    done = there.prune(LAST_ONE)
    assert [point.id for point in done.manifests] == [first.id]
    assert done.delete_size > 0
    assert [point.sequence for point in there.look().points] == [2, 3]
    again = there.prune(LAST_ONE)
    assert (again.names, again.to_mark) == ((), ())
    assert there.backup({"config": 2}).sequence == 4
    there.look()


def test_a_component_leaves_a_point_that_stays(there: Site) -> None:
    policies = RetentionPlan(DAY.total_seconds(), spool=KeepPlan(last=1), config=KeepPlan(within=30 * 86400.0))
    there.backup({"spool": 1, "config": 2})
    there.store.now += DAY
    there.backup({"spool": 3, "config": 4})
    there.prune(policies)
    there.store.now += 2 * DAY
    there.backup({"config": 5})
    plan = there.prune(policies)
    assert [(point.id, name) for point, name in plan.dropped] == [("primary-1", "spool")]
    assert [[each.component for each in point.sections] for point in there.look().points] == [
        ["config"], ["spool", "config"], ["config"],
    ]  # fmt: skip


def test_a_component_that_is_there_is_not_hidden_by_a_record(there: Site) -> None:
    from kumodr.vault.cleared import Cleared, record_cleared

    there.backup({"spool": 1})
    there.backup({"spool": 2})
    record_cleared(
        there.made.vault, "primary", Cleared(sections={1: frozenset({"spool"})}), (), there.made.key, there.clock
    )
    assert [len(point.sections) for point in there.look().points] == [1, 1]


def gone_in_the_middle(there: Site) -> list[Point]:
    points = [there.backup({"config": number}) for number in range(4)]
    there.made.vault.store.delete(["points/primary/00000002.json"])
    return points


@pytest.mark.parametrize("forged", ["by a stranger", "for another hash", "of another vault", "damaged"])
def test_a_record_that_does_not_count_explains_no_gap(there: Site, tmp_path: Path, forged: str) -> None:
    from kumodr.vault.cleared import Cleared, Run, record_cleared

    points = gone_in_the_middle(there)
    run = Run(2, 2, points[0].sha256, points[1].sha256)
    vault, key = there.made.vault, there.made.key
    if forged == "by a stranger":
        key = NodeKey.load_or_create(tmp_path / "stranger", "stranger")
        from kumodr.vault.nodes import register

        register(vault, key)
    if forged == "for another hash":
        run = replace(run, sha256="0" * 64)
    if forged == "of another vault":
        vault = replace(vault, id=str(uuid.uuid4()))
    record_cleared(vault, "primary", Cleared(runs=(run,)), (), key, there.clock)
    if forged == "damaged":
        name = "pruned/primary/00000001.json"
        text = vault.store.get(name, 1 << 20)
        vault.store.delete([name])
        vault.store.put_if_absent(name, [text.replace(b'"runs"', b'"runs" ')])
    found = survey(there.made.vault, {"primary": frozenset([there.made.key.public])})
    assert [type(problem) for problem in found.problems] == [errors.ChainBroken]
    with pytest.raises(errors.PruneUnsafe):
        there.prune(LAST_ONE, pins={"primary": frozenset([there.made.key.public])})


def test_a_first_point_that_is_missing_without_a_record_is_said(there: Site) -> None:
    gone_in_the_middle(there)
    there.made.vault.store.delete(["points/primary/00000001.json"])
    assert "before primary-3" in str(survey(there.made.vault, {}).problems[0])


def test_a_backup_that_began_before_the_mark_keeps_what_it_uses(there: Site) -> None:
    """The race of `marks.py`: use decided, marked, everybody else agreed as far as known, then committed."""
    there.backup({"config": 1})
    there.store.now += DAY
    there.backup({"config": 2})
    with ExitStack() as stack:
        session = there.begin(stack)
        session.store("config", capture_of(there.files(1)))
        there.prune(LAST_ONE)
        there.store.now += 10 * DAY
        assert there.prune(LAST_ONE).names == ()
        point = session.commit()
        assert point.marks == 0
    for _ in range(3):
        there.store.now += 10 * DAY
        there.prune(LAST_ONE)
        there.look()
    assert verify_deep(there.made.vault, point, there.made.identities, quiet).problems == ()


def test_content_that_comes_back_after_its_mark_is_stored_anew(there: Site) -> None:
    first = there.backup({"config": 1})
    there.store.now += DAY
    there.backup({"config": 2})
    there.store.now += DAY
    there.prune(LAST_ONE)
    third = there.backup({"config": 1})
    assert third.marks == 1
    assert {each.name for each in third.sections[0].objects}.isdisjoint(each.name for each in first.sections[0].objects)
    assert there.backup({"config": 1}).sections[0].objects == third.sections[0].objects
    there.store.now += 10 * DAY
    assert [point.id for point in there.prune(LAST_ONE).manifests] == ["primary-1"]
    there.look()


def test_a_run_behind_one_that_knows_a_newer_mark_gives_up(there: Site, tmp_path: Path) -> None:
    there.backup({"config": 1})
    there.store.now += DAY
    there.backup({"config": 2})
    twin = NodeKey.load_or_create(tmp_path / "twin", "primary")
    with ExitStack() as stack:
        session = there.begin(stack)
        session.store("config", capture_of(there.files(1)))
        there.prune(LAST_ONE)
        with begin_backup(there.made.vault, twin, tmp_path / "twin", there.clock, quiet) as other:
            other.store("config", capture_of(there.files(7)))
            assert other.commit().marks == 1
        with pytest.raises(errors.AnotherRun, match="to be deleted"):
            session.commit()


def test_a_node_that_has_stopped_is_waited_for_until_it_is_said(there: Site, tmp_path: Path) -> None:
    second = NodeKey.load_or_create(tmp_path / "second", "second")
    there.backup({"config": 1}, key=second)
    there.backup({"config": 1})
    there.backup({"config": 2})
    there.prune(LAST_ONE)
    there.store.now += 2 * DAY
    there.backup({"config": 3})
    assert "second" in there.prune(LAST_ONE).waiting[0].reason
    assert [point.id for point in there.prune(LAST_ONE, retired=["second"]).manifests] == ["primary-1"]


def test_what_a_dead_run_left_goes_only_when_it_is_old(there: Site) -> None:
    there.backup({"config": 1})
    with ExitStack() as stack:
        there.begin(stack).store("redis", capture_of(there.files(2)))
    assert there.prune(LAST_ONE).to_mark == ()
    there.store.now += 2 * DAY
    assert len(there.prune(LAST_ONE).to_mark) == 2
    there.backup({"config": 1})
    there.store.now += 2 * DAY
    assert len(there.prune(LAST_ONE).names) == 2
    there.backup({"redis": 2})
    there.look()


def test_segments_before_every_kept_base_go_and_the_first_one_stays(there: Site) -> None:
    for number in range(3):
        there.backup({"spool": number, "logs": number}, joins=True)
        for _ in range(10):
            there.stream.add()
        there.stream.roll(there.stream.number - 7, there.stream.number)
        there.store.now += DAY
    there.prune(LAST_ONE)
    there.store.now += 2 * DAY
    there.backup({"config": 1})
    there.prune(LAST_ONE)
    left = listing(there.made.vault, "primary", 1)
    assert left.singles == {1, *range(20, 31)}
    assert left.rollups == ((13, 20), (23, 30))
    there.look()


def test_an_epoch_that_waits_for_its_base_stays(there: Site) -> None:
    there.backup({"spool": 1}, joins=True)
    there.stream = Stream(there.made, epoch=2)
    for _ in range(5):
        there.stream.add()
    there.store.now += 10 * DAY
    there.prune(LAST_ONE)
    there.store.now += 10 * DAY
    there.backup({"config": 1})
    there.prune(LAST_ONE)
    assert len(listing(there.made.vault, "primary", 2).singles) == 5


def test_used_up_marks_go_and_the_newest_stays(there: Site) -> None:
    for number in range(8):
        there.backup({"config": number})
        there.prune(LAST_ONE)
        there.store.now += 2 * DAY
    there.prune(LAST_ONE)
    there.prune(LAST_ONE)
    assert len(marks_of(there.made.vault)) <= 3
    assert len(list(there.made.vault.store.list("pruned/"))) == 1
    newest = marks_of(there.made.vault)[-1]
    there.made.vault.store.delete([name_of(number) for number in marks_of(there.made.vault)[:-1]])
    assert there.backup({"config": 9}).marks == newest


def test_growth_is_what_the_last_week_added(there: Site) -> None:
    assert inventory(there.made.vault).growth is None
    for number in range(12):
        there.backup({"config": number})
        there.store.now += DAY
    found = inventory(there.made.vault)
    one = sum(
        each.size for each in (*there.look().points[-1].sections[0].index, *there.look().points[-1].sections[0].objects)
    )
    assert found.growth is not None
    assert 0.5 * one < found.growth < 1.5 * one


def test_a_listing_that_is_late_prunes_nothing(there: Site) -> None:
    there.backup({"config": 1})
    there.backup({"config": 2})

    class Late:
        def list(self, prefix: str, after: str = "") -> Iterator[str]:
            return (name for name in there.store.list(prefix, after) if "00000002" not in name)

        def __getattr__(self, name: str) -> Any:
            return getattr(there.store, name)

    late = replace(there.made.vault, store=Late())
    plan = plan_prune(late, LAST_ONE, datetime.now(UTC) + 10 * DAY)
    with pytest.raises(errors.PruneUnsafe, match="late"):
        apply_prune(late, plan, there.made.key, there.clock)
