"""A copy of a vault: whole for what it shows at every moment, checked without a key, never with what is damaged."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buckets import Server, localbucket, moto
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
    copy_vault(made.vault, open_copy(made.vault, str(made.folder / "copy")), quiet)
    point(made, 8)
    moved = replace(made, vault=open_vault(str(made.folder / "copy")))
    point(moved, 8)
    for each in survey(moved.vault, {}).points:
        assert verify_deep(moved.vault, each, made.identities, quiet).problems == ()


def test_a_copy_goes_from_a_directory_to_a_bucket_and_back(made: Bench, tmp_path: Path) -> None:
    place = moto().place(tmp_path)
    there = copy_vault(made.vault, open_copy(made.vault, place), quiet)
    assert there.problems == ()
    bucket = open_vault(place)
    copy_vault(bucket, open_copy(bucket, str(made.folder / "back")), quiet)
    assert names(made, "back") == names(made, "vault")
    for name in names(made, "vault"):
        assert (made.folder / "back" / name).read_bytes() == (made.folder / "vault" / name).read_bytes()
    with localbucket(tmp_path / "objects") as second:
        copy_vault(bucket, open_copy(bucket, second.place(tmp_path)), quiet)
        last = open_vault(second.place(tmp_path, bucket_of(second)))
        for each in survey(last, {}).points:
            assert verify_deep(last, each, made.identities, quiet).problems == ()


def bucket_of(server: Server) -> str:
    return server.client().list_buckets()["Buckets"][0]["Name"]


def test_what_lies_damaged_in_the_copy_is_named_and_mended_when_it_is_gone(made: Bench) -> None:
    copy_vault(made.vault, open_copy(made.vault, str(made.folder / "copy")), quiet)
    last = survey(made.vault, {}).points[-1]
    name = last.sections[0].objects[0].name
    (made.folder / "copy" / f"points/primary/{last.sequence:08d}.json").unlink()
    (made.folder / "copy" / name).write_bytes(b"short")
    done = copy_vault(made.vault, open_copy(made.vault, str(made.folder / "copy")), quiet)
    assert [name in each and "remove it there" in each for each in done.problems] == [True]
    assert done.points == ()
    (made.folder / "copy" / name).unlink()
    done = copy_vault(made.vault, open_copy(made.vault, str(made.folder / "copy")), quiet)
    assert (done.problems, done.points) == ((), (last.id,))


def test_segments_are_copied_a_few_at_a_time_and_few_bytes_are_held(tmp_path: Path) -> None:
    made = bench(tmp_path)
    stream = Stream(made)
    for number in range(150):
        stream.add({bytes(16): b"%d" % number})
    open_at_once, most = [0], [0]
    lock = threading.Lock()

    class Watched:
        def get(self, name: str, limit: int) -> bytes:
            with lock:
                open_at_once[0] += 1
                most[0] = max(most[0], open_at_once[0])
            time.sleep(0.002)  # a store that is some way off
            with lock:
                open_at_once[0] -= 1
            return made.vault.store.get(name, limit)

        def __getattr__(self, name: str) -> Any:
            return getattr(made.vault.store, name)

    store: Any = Watched()
    vault = replace(made.vault, store=store)
    assert copy_vault(vault, open_copy(vault, str(made.folder / "copy")), quiet).problems == ()
    assert names(made, "copy") == names(made, "vault")
    assert 2 <= most[0] <= 8
