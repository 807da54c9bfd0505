"""What every store must do, and what a directory on a bad disk says."""

import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from buckets import Server, localbucket, moto
from disks import mounted

from kumodr import errors
from kumodr.vault.directory import DirectoryStore
from kumodr.vault.store import Store, open_store


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with localbucket(tmp_path_factory.mktemp("localbucket")) as server:
        yield server


@pytest.fixture(params=["directory", "memory", "moto", "localbucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return open_store(str(tmp_path / "vault"), create=True)
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4()}", create=True)
    server = moto() if request.param == "moto" else request.getfixturevalue("second")
    return open_store(server.place(tmp_path), create=True)


def test_an_object_is_put_once_and_comes_back(store: Store) -> None:
    assert store.put_if_absent("a/b/c", [b"one ", memoryview(b"two"), bytearray(b"!")])
    assert not store.put_if_absent("a/b/c", [b"other"])
    assert store.get("a/b/c", 100) == b"one two!"
    assert store.size("a/b/c") == 8
    assert store.put_if_absent("empty", [])
    assert store.get("empty", 0) == b""


def test_the_start_of_an_object_comes_with_its_whole_size(store: Store) -> None:
    store.put_if_absent("a", [b"12345"])
    assert store.start("a", 3) == (b"123", 5)
    assert store.start("a", 100) == (b"12345", 5)
    store.put_if_absent("empty", [])
    assert store.start("empty", 10) == (b"", 0)
    with pytest.raises(errors.ObjectMissing, match="none"):
        store.start("none", 10)


def test_many_pieces_arrive_in_order(store: Store) -> None:
    pieces = [str(number).encode() for number in range(3000)]
    store.put_if_absent("many", pieces)
    assert store.get("many", 1 << 20) == b"".join(pieces)


def test_what_is_missing_or_too_large_is_said(store: Store) -> None:
    assert store.size("none") is None
    with pytest.raises(errors.ObjectMissing, match="none"):
        store.get("none", 10)
    store.put_if_absent("large", [b"x" * 11])
    with pytest.raises(errors.ObjectDamaged, match="more than the 10"):
        store.get("large", 10)


def test_names_are_listed_below_a_prefix(store: Store) -> None:
    for name in ("points/a/1", "points/a/2", "points/b/1", "marker"):
        store.put_if_absent(name, [b"x"])
    assert sorted(store.list("points/a/")) == ["points/a/1", "points/a/2"]
    assert sorted(store.list("")) == ["marker", "points/a/1", "points/a/2", "points/b/1"]
    assert list(store.list("none/")) == []


def test_names_behind_another_are_listed(store: Store) -> None:
    for number in range(1002):
        store.put_if_absent(f"s/{number:04d}", [b""])
    assert sorted(store.list("s/", after="s/0999")) == ["s/1000", "s/1001"]
    assert len(list(store.list("s/"))) == 1002


def test_entries_have_their_size_and_the_time_by_the_store(store: Store) -> None:
    store.put_if_absent("a/1", [b"12345"])
    store.put_if_absent("b/1", [b"1"])
    (entry,) = store.entries("a/")
    assert (entry.name, entry.size) == ("a/1", 5)
    assert abs(datetime.now(UTC) - entry.modified) < timedelta(minutes=1)


def test_what_is_deleted_is_gone_and_deleting_again_is_no_mistake(store: Store) -> None:
    for name in ("a/1", "a/2", "b/1"):
        store.put_if_absent(name, [b"x"])
    store.delete(["a/1", "none", "b/none/1", "b/1"])
    store.delete(["a/1"])
    assert list(store.list("")) == ["a/2"]
    assert store.size("a/1") is None
    assert store.put_if_absent("a/1", [b"y"])


def test_of_many_writers_one_wins_and_its_bytes_are_there(store: Store) -> None:
    won: list[int] = []
    gate = threading.Barrier(8)

    def write(number: int) -> None:
        gate.wait()
        if store.put_if_absent("same", [bytes([number]) * 100_000]):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("same", 1 << 20) == bytes([won[0]]) * 100_000


def test_a_directory_keeps_its_objects_private_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/vault", create=True)
    store.put_if_absent("a/b", [b"x"])
    store.put_if_absent("a/b", [b"y"])
    assert (tmp_path / "vault" / "a" / "b").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "vault" / "a").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "vault" / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", "", "a/\0b"])
def test_a_directory_is_never_left(tmp_path: Path, name: str) -> None:
    store = DirectoryStore(tmp_path / "vault")
    store.make()
    with pytest.raises(errors.ManifestUnsafe):
        store.put_if_absent(name, [b"x"])
    with pytest.raises(errors.ManifestUnsafe):
        store.get(name, 10)
    assert not (tmp_path / "x").exists()


def test_a_link_in_the_vault_is_not_followed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "vault")
    store.make()
    (tmp_path / "secret").write_bytes(b"secret")
    os.symlink(tmp_path / "secret", tmp_path / "vault" / "object")
    with pytest.raises(errors.StoreUnavailable):
        store.get("object", 100)


def test_a_directory_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "vault")
    store.make()
    (tmp_path / "vault").rename(tmp_path / "elsewhere")
    for call in (
        lambda: store.put_if_absent("a", [b"x"]),
        lambda: store.get("a", 1),
        lambda: store.size("a"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(errors.StoreUnavailable, match="is gone"):
            call()
    assert not (tmp_path / "vault").exists()
    with pytest.raises(errors.VaultMissing):
        open_store(str(tmp_path / "vault"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    with mounted(tmp_path / "disk", "1m") as folder:
        yield folder


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    store = DirectoryStore(small_disk)
    assert store.put_if_absent("fits", [b"x" * 100_000])
    with pytest.raises(errors.StoreFull):
        store.put_if_absent("large", [b"x" * 100_000] * 20)
    assert store.size("large") is None
    assert list((small_disk / "tmp").iterdir()) == []
    assert store.put_if_absent("fits too", [b"x" * 100_000])


def test_a_read_only_disk_is_said(small_disk: Path) -> None:
    store = DirectoryStore(small_disk)
    store.put_if_absent("a", [b"x"])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(errors.StoreReadOnly):
        store.put_if_absent("b", [b"x"])
    with pytest.raises(errors.StoreReadOnly):
        store.delete(["a"])
    assert store.get("a", 10) == b"x"


@pytest.mark.parametrize("url", ["relative/path", "file://host/path", "what://is/this"])
def test_an_address_that_means_nothing_is_refused(url: str) -> None:
    with pytest.raises(errors.UsageWrong):
        open_store(url)


def test_an_address_with_a_secret_is_refused_without_repeating_it() -> None:
    with pytest.raises(errors.UsageWrong) as caught:
        open_store("s3://key:hush@bucket/x")
    assert "hush" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_adds_belongs_to_the_owner_of_the_vault(tmp_path: Path) -> None:
    os.chown(tmp_path, 2999, 2998)
    DirectoryStore(tmp_path).put_if_absent("verified/lab-1/1.json", [b"{}"])
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")}
    assert owners == {(2999, 2998)}
