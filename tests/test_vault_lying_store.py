"""A store that lies: refuses, loses answers, cuts them short, lists late. Either all is exact, or an error says so."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from buckets import moto
from liar import Liar, lying
from protected import Protected, is_well
from streams import Stream
from vaults import Bench, bench, content_of, quiet

from kumodr import errors
from kumodr.plan.model import KeepPlan, RetentionPlan, VaultPlan
from kumodr.vault.copy import copy_vault, open_copy
from kumodr.vault.fetch import fetch
from kumodr.vault.objectstore import ObjectStore
from kumodr.vault.open import Vault, create_vault, open_vault
from kumodr.vault.patience import Patience
from kumodr.vault.points import survey
from kumodr.vault.providers import open_object_store
from kumodr.vault.prune import apply_prune, plan_prune
from kumodr.vault.verify import verify_deep, verify_shallow

_Done = TypeVar("_Done")
HASTY = Patience(tries=9, first=0.001, longest=0.004, total=20.0)


@dataclass
class Far:
    """A bench whose vault is in a bucket behind a liar. `place` is where it is without the liar in between."""

    made: Bench
    liar: Liar
    store: ObjectStore
    place: VaultPlan


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    made = bench(tmp_path)
    place = moto().place(tmp_path)
    vault = create_vault(place, made.vault.recipients, made.clock)
    with lying(moto().endpoint) as liar:
        store = open_object_store(replace(place, endpoint=liar.endpoint, timeout=2.0), HASTY)
        yield Far(replace(made, vault=Vault(store, vault.id, vault.recipients)), liar, store, place)


def until_done(what: Callable[[], _Done]) -> tuple[_Done, int]:
    """Run it again for as long as it ends with an error of its own; return what it gave and how often it failed."""
    for failures in range(40):
        try:
            return what(), failures
        except errors.KumodrError:
            continue
    raise AssertionError("it never got through")


def test_a_storm_costs_time_and_no_byte(far: Far, tmp_path: Path) -> None:
    made = far.made
    source = tmp_path / "source"
    source.mkdir()
    for number in range(6):
        (source / f"large{number}").write_bytes(bytes([number]) * (1 << 20))
    (source / "small").write_bytes(b"small")
    far.liar.storm(1, 0.25)
    until_done(lambda: made.backup_tree(source))
    (source / "small").write_bytes(b"other")
    until_done(lambda: made.backup_tree(source))
    stream = Stream(made)
    for number in range(12):
        stream.add({bytes(16): b"%d" % number})
    found, _ = until_done(lambda: survey(made.vault, {}))
    assert found.problems == ()
    assert len(found.points) >= 2
    point = found.points[-1]
    assert until_done(lambda: verify_shallow(made.vault, point))[0].problems == ()
    assert until_done(lambda: verify_deep(made.vault, point, made.identities, quiet))[0].problems == ()
    until_done(lambda: fetch(made.vault, point.sections[0], made.identities, tmp_path / "back", quiet))
    assert content_of(tmp_path / "back") == content_of(source)
    copied: list[str] = []

    def copy() -> None:
        done = copy_vault(made.vault, open_copy(made.vault, str(tmp_path / "copy")), quiet)
        copied.extend(done.problems)

    until_done(copy)
    assert copied == []
    assert far.liar.faults > 20
    far.liar.calm()
    copy_of = open_vault(str(tmp_path / "copy"))
    assert sorted(copy_of.store.list("")) == sorted(made.vault.store.list(""))
    for name in made.vault.store.list("objects/"):
        assert copy_of.store.get(name, 1 << 24) == made.vault.store.get(name, 1 << 24)
    last = RetentionPlan(config=KeepPlan(last=1))
    far.liar.storm(2, 0.25)
    later = datetime.now(UTC) + timedelta(days=10)
    until_done(lambda: apply_prune(made.vault, plan_prune(made.vault, last, later), made.key, made.clock))
    far.liar.calm()
    for each in survey(made.vault, {}).points:
        assert verify_deep(made.vault, each, made.identities, quiet).problems == ()


def test_protection_goes_on_through_a_storm(far: Far, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    made = Protected(tmp_path / "site")
    try:
        made.made.vault = far.made.vault
        made.made.identity = far.made.identity
        made.store._store = far.store
        made.vault = Vault(made.store, far.made.vault.id, far.made.vault.recipients)
        made.crash()
        made.accept(1, 1)
        is_well(made)
        far.liar.storm(3, 0.2, ("busy", "lost"))
        for number in range(2, 8):
            made.accept(number, number)
            made.round()
        far.liar.calm()
        made.finish_message(1)
        is_well(made)
        assert made.board.now.rebase_counts == {"first": 1}
    finally:
        made.close()


def test_an_answer_that_is_lost_leaves_the_name_ones_own(far: Far) -> None:
    answers: list[str | None] = ["lost", "lost", None]
    far.liar.choose = lambda method, _path: answers.pop(0) if method == "PUT" and answers else None
    assert far.store.put_if_absent("a/1", [b"mine"])
    assert not far.store.put_if_absent("a/1", [b"mine"])
    answers = ["busy", None]
    assert not far.store.put_if_absent("a/1", [b"other"])
    assert far.store.get("a/1", 10) == b"mine"


def test_who_comes_second_behind_a_lost_answer_is_told_so(far: Far) -> None:
    other = open_object_store(far.place, HASTY)

    def choose(method: str, _path: str) -> str | None:
        if method != "PUT":
            return None
        other.put_if_absent("a/1", [b"theirs"])
        return "busy" if far.liar.seen["PUT"] == 1 else None

    far.liar.choose = choose
    assert not far.store.put_if_absent("a/1", [b"mine"])
    assert far.store.get("a/1", 10) == b"theirs"


@pytest.mark.parametrize("fault", ["busy", "lost", "hang"])
def test_a_store_that_stays_away_is_said(far: Far, fault: str) -> None:
    patience = replace(HASTY, tries=2)
    store = open_object_store(replace(far.place, endpoint=far.liar.endpoint, timeout=0.2), patience)
    far.liar.choose = lambda _method, _path: fault
    for call in (
        lambda: store.put_if_absent("a", [b"x"]),
        lambda: store.get("a", 10),
        lambda: store.start("a", 10),
        lambda: store.size("a"),
        lambda: list(store.list("")),
        lambda: store.delete(["a"]),
    ):
        with pytest.raises(errors.StoreUnavailable) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250


def test_an_answer_that_is_cut_is_asked_for_again(far: Far) -> None:
    far.store.put_if_absent("a", [bytes(300_000)])
    answers = ["cut", "cut"]
    far.liar.choose = lambda method, _path: answers.pop(0) if method == "GET" and answers else None
    assert far.store.get("a", 1 << 20) == bytes(300_000)
    assert answers == []


def test_fewer_bytes_that_pass_for_all_are_noticed(far: Far, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(bytes(range(256)) * 8192)
    point = far.made.backup_tree(source)
    far.liar.choose = lambda method, path: "short" if method == "GET" and "/objects/" in path else None
    assert verify_deep(far.made.vault, point, far.made.identities, quiet).problems != ()
    with pytest.raises(errors.KumodrError, match="damaged"):
        fetch(far.made.vault, point.sections[0], far.made.identities, tmp_path / "back", quiet)
    assert not (tmp_path / "back").exists()
    done = copy_vault(far.made.vault, open_copy(far.made.vault, str(tmp_path / "copy")), quiet)
    assert done.points == ()
    assert done.problems != ()
    far.liar.calm()
    again = copy_vault(far.made.vault, open_copy(far.made.vault, str(tmp_path / "copy")), quiet)
    assert again.points == (point.id,)
    assert again.problems == ()


class Late:
    """A store whose listings lack the names that were put last."""

    def __init__(self, store: Any, by: int) -> None:
        self._store, self._by = store, by
        self._put: list[str] = []

    def put_if_absent(self, name: str, pieces: Any) -> bool:
        won = self._store.put_if_absent(name, pieces)
        self._put += [name] if won else []
        return won

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        late = self._put[-self._by :]
        return (name for name in self._store.list(prefix, after) if name not in late)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_listing_that_is_late_hides_no_point_and_no_segment(made_late: Bench, tmp_path: Path) -> None:
    from kumodr.vault.stream import extent, listing, trust_of

    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / "file").write_bytes(b"%d" % number)
        assert made_late.backup_tree(source).sequence == number + 1
    found = survey(made_late.vault, {})
    assert [point.sequence for point in found.points] == [1, 2, 3]
    assert found.late != ()
    plan = plan_prune(made_late.vault, RetentionPlan(config=KeepPlan(last=1)), datetime.now(UTC))
    with pytest.raises(errors.PruneUnsafe, match="late"):
        apply_prune(made_late.vault, plan, made_late.key, made_late.clock)
    stream = Stream(made_late)
    for number in range(9):
        stream.add({bytes(16): b"%d" % number})
    listed = listing(made_late.vault, "primary", 1)
    assert listed.newest < 9
    reach, problems = extent(made_late.vault, listed, 1, trust_of(made_late.vault, {}))
    assert reach is not None
    assert (reach.last, problems) == (9, ())


@pytest.fixture
def made_late(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    store: Any = Late(made.vault.store, 4)
    return replace(made, vault=replace(made.vault, store=store))
