"""A copy of a vault: whole for what it shows at every moment, checked without a key, never with what is damaged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from streams import Stream
from vaults import Bench, bench, capture_of, quiet

from kumodr import errors
from kumodr.source import Held, SourceFile
from kumodr.vault.copy import copy_vault, open_copy
from kumodr.vault.open import create_vault, open_vault
from kumodr.vault.points import survey
from kumodr.vault.store import Piece
from kumodr.vault.verify import verify_deep, verify_shallow


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    for number in range(3):
        point(made, number)
    stream = Stream(made)
    for number in range(6):
        stream.add({bytes(16): b"%d" % number})
    stream.roll(2, 5)
    return made


def point(made: Bench, number: int) -> None:
    made.backup({"config": capture_of([SourceFile("file", size=9, content=Held(b"content %d" % number))])})


def names(made: Bench, where: str) -> set[str]:
    return set(open_vault(str(made.folder / where)).store.list(""))


def test_a_copy_has_everything_and_then_only_what_is_new(made: Bench) -> None:
    target = open_copy(made.vault, str(made.folder / "copy"))
    done = copy_vault(made.vault, target, quiet)
    assert done.points == ("primary-1", "primary-2", "primary-3")
    assert names(made, "copy") == names(made, "vault")
    again = copy_vault(made.vault, target, quiet)
    assert (again.objects, again.problems) == (0, ())
    point(made, 7)
    assert copy_vault(made.vault, target, quiet).points == ("primary-4",)
    copy = open_vault(str(made.folder / "copy"))
    for each in survey(copy, {}).points:
        assert verify_deep(copy, each, made.identities, quiet).problems == ()


def test_a_copy_that_is_cut_off_anywhere_is_whole_for_what_it_shows(made: Bench) -> None:
    class Full(Exception):
        pass

    class Cut:
        def __init__(self, store: Any, left: int) -> None:
            self._store, self.left = store, left

        def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
            self.left -= 1
            if self.left < 0:
                raise Full
            return self._store.put_if_absent(name, pieces)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    total = len(names(made, "vault"))
    for count in range(total):
        target = open_copy(made.vault, str(made.folder / f"copy{count}"))
        with pytest.raises(Full):
            copy_vault(made.vault, Cut(target, count), quiet)
            raise Full
        copy = open_vault(str(made.folder / f"copy{count}"))
        found = survey(copy, {})
        assert found.problems == ()
        for each in found.points:
            assert verify_shallow(copy, each).problems == ()
        assert copy_vault(made.vault, target, quiet).problems == ()
        assert names(made, f"copy{count}") == names(made, "vault")


def test_what_is_damaged_is_named_and_not_copied(made: Bench) -> None:
    second = survey(made.vault, {}).points[1]
    for name in (second.sections[0].objects[0].name, "stream/primary/00000001/0000000003.seg"):
        path = made.folder / "vault" / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    done = copy_vault(made.vault, open_copy(made.vault, str(made.folder / "copy")), quiet)
    assert len(done.problems) == 2
    assert done.points == ("primary-1", "primary-3")
    missing = names(made, "vault") - names(made, "copy")
    assert {f"stream/primary/00000001/{number:010d}.seg" for number in (3, 4, 5, 6)} <= missing
    assert second.sections[0].objects[0].name in missing


def test_another_vault_is_no_copy(made: Bench) -> None:
    create_vault(str(made.folder / "other"), [made.identity.recipient], made.clock)
    with pytest.raises(errors.VaultExists):
        open_copy(made.vault, str(made.folder / "other"))


def test_a_backup_into_the_copy_relies_on_nothing_that_only_the_first_has(made: Bench) -> None:
    from dataclasses import replace

    copy_vault(made.vault, open_copy(made.vault, str(made.folder / "copy")), quiet)
    point(made, 8)
    moved = replace(made, vault=open_vault(str(made.folder / "copy")))
    point(moved, 8)
    for each in survey(moved.vault, {}).points:
        assert verify_deep(moved.vault, each, made.identities, quiet).problems == ()
