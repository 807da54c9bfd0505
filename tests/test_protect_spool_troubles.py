"""What happens beneath the loop: a volume that goes, another database, names that a listing misses, logs that turn."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from protected import BEGUN, Kind, Protected
from servers import wait_for
from wal_database import untouched

from kumodr.clock import time_of_text
from kumodr.protect import local_source, shipper, stream
from kumodr.protect.errand import Errand, Wanted
from kumodr.protect.local_source import LocalSource
from kumodr.protect.points import Points
from kumodr.protect.source import SourceLost
from kumodr.spool.localdisk import walk


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "_FIRST_PAUSE", 0.002)
    monkeypatch.setattr(stream, "_PAUSES", (0.002,))
    monkeypatch.setattr(local_source, "_SHARE", 1.0)


@pytest.fixture(params=["rocksdb", "localdisk"])
def protected(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Protected]:
    kind: Kind = request.param
    made = Protected(tmp_path, kind)
    made.round()
    for number in range(1, 5):
        made.accept(number, number)
    made.base()
    made.round()
    assert made.board.now.state == "protected"
    yield made
    made.close()


def held_by_vault(protected: Protected) -> object:
    found = protected.recoverable()
    assert found is not None
    return found[0]


def is_well(protected: Protected) -> None:
    def well() -> bool:
        protected.round()
        protected.base()
        protected.round()
        return protected.board.now.state == "protected"

    wait_for("protection", well)
    assert held_by_vault(protected) == protected.copied()


@pytest.mark.parametrize("what", ["", "meta", "data"])
@pytest.mark.parametrize("left", ["nothing", "an empty directory", "a file"])
def test_a_spool_that_goes_away_is_not_a_spool_whose_messages_left(protected: Protected, what: str, left: str) -> None:
    """A volume that is not mounted shows an empty directory: nothing of it is taken for finished."""
    place = protected.spool / what if what else protected.spool
    elsewhere = protected.spool.with_name("elsewhere")
    place.rename(elsewhere)
    if left == "an empty directory":
        place.mkdir()
    elif left == "a file":
        place.write_text("")
    for _ in range(3):
        protected.stream.round()
        protected.stream.acknowledge(1.0)
        assert held_by_vault(protected) == protected.copied()
    assert protected.board.now.state == "lost"
    assert protected.board.now.trouble
    if left == "an empty directory":
        shutil.rmtree(place)
    elif left == "a file":
        place.unlink()
    elsewhere.rename(place)
    protected.accept(9, 9)
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "spool": 1}
    assert "director" in protected.board.now.rebases[-1].reason


def test_a_mount_that_covers_the_spool(protected: Protected) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", protected.spool / "meta"], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        (protected.spool / "meta" / "data").mkdir()
        protected.stream.round()
        protected.stream.acknowledge(1.0)
        assert held_by_vault(protected) == protected.copied()
        assert protected.board.now.state == "lost"
    finally:
        subprocess.run(["umount", protected.spool / "meta"], check=True)
    is_well(protected)


@pytest.mark.parametrize("protected", ["localdisk"], indirect=True)
def test_a_spool_that_is_empty_again(protected: Protected) -> None:
    """KumoMTA prunes empty directories, `data` itself too: these messages did leave."""
    for number in range(1, 5):
        protected.finish_message(number)
    for half in ("meta", "data"):
        shutil.rmtree(protected.spool / half / "data")
    protected.round()
    assert held_by_vault(protected) == ({}, {})
    assert protected.board.now.rebase_counts == {"first": 1}
    protected.accept(5, 5)
    is_well(protected)


@pytest.mark.parametrize("protected", ["localdisk"], indirect=True)
def test_a_name_that_a_listing_misses_is_not_gone(protected: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems give a name that is replaced a new place, which a listing that is under way may not see."""
    missed = (2).to_bytes(16, "big")
    monkeypatch.setattr(
        local_source, "walk", lambda half: (each for each in walk(half) if getattr(each, "key", b"") != missed)
    )
    protected.finish_message(1)
    protected.round()
    assert held_by_vault(protected) == protected.copied()
    monkeypatch.undo()
    protected.finish_message(2)
    is_well(protected)


@pytest.mark.parametrize("protected", ["localdisk"], indirect=True)
def test_a_body_that_is_replaced_with_its_metadata(protected: Protected) -> None:
    """A policy may change a message when it puts it off."""
    protected.accept(2, 77, 5_000)
    protected.round()
    assert held_by_vault(protected) == protected.copied()


@pytest.mark.parametrize("protected", ["localdisk"], indirect=True)
def test_bodies_are_not_read_again_because_their_message_was_put_off(protected: Protected) -> None:
    old = (protected.spool / "data").rglob("0*")
    for path in old:
        os.utime(path, (1, 1))
    protected.put_off(2, 78)
    source = LocalSource(protected.spool / "meta", protected.spool / "data", protected.made.state / "another")
    for piece in source.pieces(1 << 20):
        assert len(piece.data) == 4
    protected.put_off(2, 79)
    (piece,) = source.pieces(1 << 20)
    assert (len(piece.meta), len(piece.data)) == (1, 0)
    assert held_by_vault(protected) != ()


@pytest.mark.parametrize("protected", ["rocksdb"], indirect=True)
def test_another_database_in_the_spools_place(protected: Protected) -> None:
    """A restored spool, or a new one: a new base, and the reason."""
    protected.server.kill()
    copy = protected.spool.with_name("copy")
    shutil.copytree(protected.spool, copy)
    shutil.rmtree(protected.spool)
    copy.rename(protected.spool)
    protected.server.start()
    protected.accept(9, 9)
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "spool": 1}
    assert "replaced by another" in protected.board.now.rebases[-1].reason


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("protected", ["rocksdb"], indirect=True)
def test_a_log_that_comes_and_goes_between_two_rounds(protected: Protected, held: bool) -> None:
    """It can be read if it was opened while it was there; else that it was missed is seen."""
    for turn in range(6):
        protected.accept(10 + turn, turn)
        if held:
            protected.stream.hold()
        protected.server.flush()
    protected.round()
    is_well(protected)
    assert protected.board.now.rebase_counts == ({"first": 1} if held else {"first": 1, "spool": 1})


@pytest.mark.parametrize("protected", ["rocksdb"], indirect=True)
def test_a_spool_that_cannot_be_followed_is_not_begun_with_again_and_again(
    protected: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch that ends before it was joined makes the next one wait longer."""
    monkeypatch.setattr(stream, "_PAUSES", (0.0, 1e9))

    def lost(*_: object) -> None:
        raise SourceLost("it holds what nobody understands")

    monkeypatch.setattr("kumodr.protect.rocks_source.RocksSource.pieces", lost)
    for _ in range(50):
        protected.round()
    assert protected.board.now.rebase_counts == {"first": 1, "spool": 2}
    monkeypatch.undo()
    monkeypatch.setattr(protected.stream._short_lived, "_until", 0.0)
    is_well(protected)


def test_a_clock_that_goes_back(protected: Protected) -> None:
    """Times in the stream do not go back; what is claimed is never of the future."""
    protected.time += timedelta(hours=1)
    protected.accept(5, 5)
    protected.round()
    protected.time = BEGUN + timedelta(minutes=1)
    for number in range(6, 9):
        protected.accept(number, number)
        protected.round()
        assert time_of_text(str(protected.board.now.recoverable_until)) <= protected.time
    assert protected.board.now.state == "protected"
    protected.stop()
    protected.finish_message(5)
    is_well(protected)
    assert time_of_text(str(protected.board.now.recoverable_until)) <= protected.time


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_stopped_spool_is_read_by_somebody_who_may_only_read_and_stays_as_it_is(protected: Protected) -> None:
    """Names, sizes, times and inodes are the same afterwards."""
    protected.server.kill()
    before = {path: untouched(path) for path in [protected.spool, *protected.spool.rglob("*")] if path.is_dir()}
    for folder, _, files in os.walk(protected.spool):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o644)
    for folder in (protected.spool, *protected.spool.parents):
        if str(folder).startswith("/tmp/"):
            os.chmod(folder, os.stat(folder).st_mode | 0o055)
    for folder in (protected.made.state, protected.spool.parent / "vault"):
        subprocess.run(["chown", "-R", "65534", folder], check=True)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (protected.spool / "meta" / "x").touch()
        protected.crash()
        for _ in range(3):
            protected.round()
        assert protected.board.now.state == "protected"
        assert protected.board.now.trouble is None
    finally:
        os.seteuid(0)
    assert {path: untouched(path) for path in before} == before
    is_well(protected)
    assert {path: untouched(path) for path in before} == before


# --- logs --------------------------------------------------------------------------------------


# --- the processes that store points ----------------------------------------------------------


def test_a_process_that_cannot_be_started_is_tried_again_later(
    protected: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    points = Points(Path("/nowhere"), protected.plan, protected.stream, protected.board, protected.clock, said.append)
    protected.time += timedelta(days=2)

    def no_process(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("kumodr.protect.errand.subprocess.Popen", no_process)
    for _ in range(3):
        points.step()
    assert not points.busy
    assert [each for each in said if "not stored" in each] == [
        "base not stored: no process can be started for it: Resource temporarily unavailable; the next try is in 15 s"
    ]


def test_a_new_epoch_does_not_wait_because_of_tries_for_the_one_before(
    protected: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Wanted] = []

    class Fails:
        whole = None

        def __init__(self, _plan: Path, wanted: Wanted) -> None:
            self.wanted = wanted
            begun.append(wanted)

        def answers(self) -> list[object]:
            return [{"error": {"what": "the vault is gone"}}]

        def close(self) -> None: ...

    monkeypatch.setattr("kumodr.protect.points.Errand", Fails)
    points = Points(Path("/nowhere"), protected.plan, protected.stream, protected.board, protected.clock, str)
    protected.time += timedelta(days=2)
    for _ in range(6):
        points.step()
    assert len(begun) == 1
    protected.stream._give_up("backlog", "the limit")
    protected.round()
    for _ in range(6):
        points.step()
    assert [each.epoch for each in begun] == [1, 2]


def test_a_child_that_says_something_else_is_still_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard output is JSON lines; what a library prints there must not make it look as if it ran for ever."""
    child = tmp_path / "child"
    child.write_text('#!/bin/sh\necho hello\necho \'{"error": {"what": "the spool is gone"}}\'\n')
    child.chmod(0o755)
    monkeypatch.setattr("kumodr.protect.errand.sys.executable", str(child))
    errand = Errand(tmp_path / "plan", Wanted(("spool",)))
    found: list[object] = []
    try:
        wait_for("its answer", lambda: bool(found.extend(errand.answers()) or found))
        assert found == [{"error": {"what": "the spool is gone"}}]
    finally:
        errand.close()


def test_a_child_that_dies_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kumodr.protect.errand.sys.executable", "/bin/false")
    errand = Errand(tmp_path / "plan", Wanted(("spool",)))
    found: list[object] = []
    try:
        wait_for("its end", lambda: bool(found.extend(errand.answers()) or found))
        assert "ended with status 1" in str(found)
    finally:
        errand.close()


def test_figures_that_cannot_be_written_do_not_end_protection(
    protected: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kumodr.protect.agent import Agent

    said: list[str] = []
    agent = Agent(Path("/nowhere"), protected.plan, protected.vault, protected.made.key, protected.clock, said.append)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kumodr.protect.agent.publish", full)
    agent._publish()
    agent._publish()
    assert said == [f"how protection stands cannot be written to {protected.made.state}: No space left on device"]
