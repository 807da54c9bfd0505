"""kumodr stops or is killed, things happen to the spool, and it starts again: a new base only where one is needed."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from protected import Protected, hurry, is_well, under_protection

from kumodr.protect import known


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Protected]:
    with under_protection(tmp_path) as made:
        yield made


def test_what_was_not_read_is_flushed_and_its_log_unlinked(protected: Protected) -> None:
    protected.stop()
    protected.accept(2, 2)
    protected.server.flush()
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "spool": 1}
    assert "is gone" in protected.board.now.rebases[-1].reason


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 4])
def test_an_older_copy_is_put_into_the_same_directories(protected: Protected, writes: int) -> None:
    """However much was written to it since. With as much as to what was there before, its sequence numbers go on where
    those before ended; so numbers alone prove nothing, and a log that was not held is not gone on behind.
    """
    protected.server.kill()
    copy = protected.spool.with_name("copy")
    shutil.copytree(protected.spool, copy)
    older = protected.copied()
    protected.server.start()
    for number in range(2, 5):
        protected.accept(number, number)
    protected.stop()
    protected.server.kill()
    for half in ("meta", "data"):
        for path in (protected.spool / half).iterdir():
            path.unlink()
        shutil.copytree(copy / half, protected.spool / half, dirs_exist_ok=True)
    protected.state = older
    protected.server.start()
    for number in range(10, 10 + writes):
        protected.server.flush()
        protected.accept(number, number)
    is_well(protected)
    counts = protected.board.now.rebase_counts
    assert counts == {"first": 1, "spool": 1}, counts


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Protected]:
    """A spool of plain files under protection, with messages that are older than a base takes for young."""
    monkeypatch.setattr("kumodr.protect.local_source._SHARE", 1.0)
    with under_protection(tmp_path, kind="localdisk") as made:
        yield made


def journals(protected: Protected) -> list[Path]:
    return sorted(protected.made.state.glob("known-*"), key=lambda path: int(path.name.partition("-")[2]))


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_files_that_came_changed_and_left_meanwhile(files: Protected, end: str) -> None:
    """No new base, no content twice, nothing that left stays."""
    for number in range(2, 20):
        files.accept(number, number)
    files.round()
    getattr(files, end)()
    sent = files.board.now.accepted_messages
    files.finish_message(2)
    files.put_off(3, 33)
    files.accept(4, 44)
    files.accept(30, 30)
    files.round()
    is_well(files)
    assert files.board.now.rebase_counts == {"first": 1}
    assert files.board.now.accepted_messages - sent <= 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in journals(files))


def test_what_was_stored_and_not_noted_is_said_again(files: Protected) -> None:
    """The vault has segments that no progress tells of; what left since is said to have left."""
    progress = files.made.state / "protect.json"
    kept = progress.read_bytes()
    files.accept(2, 2)
    files.put_off(1, 7)
    files.round()
    files.finish_message(1)
    files.round()
    files.crash()
    progress.write_bytes(kept)
    files.crash()
    files.finish_message(2)
    is_well(files)
    assert files.board.now.rebase_counts == {"first": 1}


def test_what_only_a_base_holds_is_decided_after_a_crash(files: Protected) -> None:
    """A message came after a walk, a base has it, and it left before the next walk, which another process makes."""

    def meanwhile(moment: str) -> None:
        if moment == "begun":
            files.accept(5, 5)
        elif moment == "joined":
            files.finish_message(5)

    files.time += timedelta(days=1)
    assert files.base(meanwhile) is not None
    files.crash()
    is_well(files)
    assert files.board.now.rebase_counts == {"first": 1}


def test_a_body_that_comes_long_after_its_metadata(files: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read when it is there, also where the journal began anew in between, and kumodr too."""
    monkeypatch.setattr(known, "_SPARE", 0)
    for number in range(2, 5):
        files.put_off(number, number)
        files.round()
        for other in range(10, 20):
            files.accept(other, number)
        files.round()
        files.stop()
        files._put("data", number, number, 300)
        files.round()
    is_well(files)
    assert files.board.now.rebase_counts == {"first": 1}


def test_the_journal_stays_small(files: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_SPARE", 20)
    for seed in range(40):
        for number in range(2, 6):
            files.accept(number, seed * 10 + number)
        files.round()
        assert len(journals(files)) <= 2
        assert sum(path.stat().st_size for path in journals(files)) < 24 * 200
        if seed % 9 == 0:
            files.crash()
    is_well(files)
    assert files.board.now.rebase_counts == {"first": 1}


LOSSES: dict[str, Callable[[Path], object]] = {
    "is gone": lambda path: path.unlink(),
    "is shorter than it was": lambda path: os.truncate(path, path.stat().st_size - 24),
    "cannot be read": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_journal_that_is_lost(files: Protected, loss: str) -> None:
    files.accept(2, 2)
    files.stop()
    LOSSES[loss](journals(files)[-1])
    files.finish_message(2)
    is_well(files)
    assert files.board.now.rebase_counts == {"first": 1, "spool": 1}
    assert loss in files.board.now.rebases[-1].reason


def test_the_machine_was_started_again(files: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    files.accept(2, 2)
    files.stop()
    monkeypatch.setattr("kumodr.protect.local_source.boot_id", lambda: "another")
    is_well(files)
    assert files.board.now.rebase_counts == {"first": 1, "spool": 1}


def test_a_disk_that_takes_no_more_of_the_journal(files: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is said that a noted position does not lead to, that position is taken back."""
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if "/known-" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    files.accept(2, 2)
    monkeypatch.setattr(os, "write", full)
    files.round()
    is_well(files)
    files.accept(3, 3)
    files.round()
    files.crash()
    files.finish_message(3)
    is_well(files)
    monkeypatch.undo()
    assert files.board.now.rebase_counts == {"first": 1, "spool": 1, "restart": 1}
    assert "cannot be kept" in files.board.now.rebases[1].reason
