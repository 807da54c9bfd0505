"""Whether a store keeps put-if-absent is tried before a vault begins; without it there may be one writer."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import Server, localbucket, moto
from liar import Liar, lying
from vaults import START, Bench, capture_of, quiet

from kumodr import errors
from kumodr.plan.model import VaultPlan
from kumodr.source import Held, SourceFile
from kumodr.vault.copy import copy_vault, open_copy
from kumodr.vault.keys import NodeKey, generate_identity
from kumodr.vault.nodes import KEEPER, register
from kumodr.vault.open import MARKER, create_vault, open_vault
from kumodr.vault.points import survey
from kumodr.vault.probe import PREFIX, why_unconditional
from kumodr.vault.store import open_store
from kumodr.vault.verify import verify_deep

RECIPIENT = generate_identity()


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying(moto().endpoint) as found:
        yield found


@pytest.fixture
def blind(liar: Liar, tmp_path: Path) -> VaultPlan:
    """A place whose store does not know the condition of a put, as several do."""
    liar.choose = lambda method, _path: "blind" if method == "PUT" else None
    return replace(moto().place(tmp_path), endpoint=liar.endpoint)


def backup(vault_of: VaultPlan, folder: Path, node: str, text: bytes) -> Bench:
    made = Bench(folder, open_vault(vault_of), RECIPIENT, NodeKey.load_or_create(folder / "state", node))
    made.backup({"config": capture_of([SourceFile("file", size=len(text), content=Held(text))])})
    return made


def test_stores_that_keep_it_pass_and_nothing_stays(tmp_path: Path) -> None:
    with localbucket(tmp_path / "objects") as second:
        servers: tuple[Server, ...] = (moto(), second)
        for store in (*(open_store(each.place(tmp_path)) for each in servers), open_store(str(tmp_path), create=True)):
            assert why_unconditional(store) is None
            assert list(store.list(PREFIX)) == []


def test_a_store_that_replaces_what_is_there_is_refused(blind: VaultPlan) -> None:
    with pytest.raises(errors.StoreUnconditional, match="takes a second object") as caught:
        create_vault(blind, [RECIPIENT.recipient], lambda: START)
    assert caught.value.exit_code == errors.UNSAFE
    assert "--without-conditional-put" in str(caught.value)
    assert open_store(blind).size(MARKER) is None


def test_a_store_that_does_not_know_the_request_is_refused(liar: Liar, tmp_path: Path) -> None:
    liar.choose = lambda method, _path: "unknown" if method == "PUT" else None
    with pytest.raises(errors.StoreUnconditional, match="does not know a request"):
        create_vault(replace(moto().place(tmp_path), endpoint=liar.endpoint), [RECIPIENT.recipient], lambda: START)


def test_a_store_that_lets_several_win_is_refused(liar: Liar, tmp_path: Path) -> None:
    liar.choose = lambda method, path: "blind" if method == "PUT" and path.endswith("-many") else None
    with pytest.raises(errors.StoreUnconditional, match="at the same time"):
        create_vault(replace(moto().place(tmp_path), endpoint=liar.endpoint), [RECIPIENT.recipient], lambda: START)


def test_what_cannot_be_deleted_again_does_not_stand_in_the_way(liar: Liar, tmp_path: Path) -> None:
    liar.choose = lambda method, _path: "refused" if method == "DELETE" else None
    place = replace(moto().place(tmp_path), endpoint=liar.endpoint)
    vault = create_vault(place, [RECIPIENT.recipient], lambda: START)
    assert vault.conditional_put
    assert len(list(vault.store.list(PREFIX))) == 2
    assert survey(vault, {}).problems == ()


def test_one_writer_may_use_it_where_that_is_allowed(blind: VaultPlan, tmp_path: Path) -> None:
    vault = create_vault(blind, [RECIPIENT.recipient], lambda: START, unconditional=True)
    assert not vault.conditional_put
    assert not open_vault(blind).conditional_put
    assert not open_vault(blind).store.put_if_absent(MARKER, [b"other"])
    for number in range(2):
        made = backup(blind, tmp_path / "one", "primary", b"%d" % number)
    assert len(survey(vault, {}).points) == 2
    with pytest.raises(errors.StoreUnconditional, match="another host adds to it as primary"):
        backup(blind, tmp_path / "two", "secondary", b"x")
    with pytest.raises(errors.StoreUnconditional, match="another host"):
        backup(blind, tmp_path / "rebuilt", "primary", b"x")
    register(vault, NodeKey.load_or_create(tmp_path / "keeper", KEEPER))
    assert [point.sequence for point in survey(vault, {}).points] == [1, 2]
    good = moto().place(tmp_path)
    copy_vault(made.vault, open_copy(made.vault, good), quiet)
    assert open_vault(good).conditional_put
    backup(good, tmp_path / "two", "secondary", b"x")
    copied = survey(open_vault(good), {})
    assert copied.problems == ()
    for point in copied.points:
        assert verify_deep(open_vault(good), point, made.identities, quiet).problems == ()


def test_a_copy_does_not_begin_where_a_site_could_not_go_on(blind: VaultPlan, tmp_path: Path) -> None:
    source = create_vault(str(tmp_path / "vault"), [RECIPIENT.recipient], lambda: START)
    with pytest.raises(errors.StoreUnconditional):
        open_copy(source, blind)
    assert open_store(blind).size(MARKER) is None
    open_copy(source, blind, unconditional=True)
    assert not open_vault(blind).conditional_put
    assert open_vault(blind).id == source.id
