"""A vault that stalls, refuses, is full, goes and comes back; what waits for it on disk; who else writes there."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from disks import mounted
from protected import Protected, backlog_of, hurry, is_well, under_protection
from servers import wait_for

from kumodr import errors
from kumodr.cli.main import main
from kumodr.protect import stream
from kumodr.vault.segment import name_of
from kumodr.vault.state import locked
from kumodr.vault.store import Piece

SEGMENT = 30_000
"""A message of so many bytes that do not compress makes a segment a little larger."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits longer than a test should."""
    hurry(monkeypatch)
    monkeypatch.setattr("kumodr.protect.local_source._SHARE", 1.0)


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Protected]:
    """A spool under protection, joined to its base."""
    with under_protection(tmp_path) as made:
        yield made


def test_a_vault_that_stalls(protected: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds go on at their pace, what waits is bounded in memory and lies sealed on disk, and arrives in order."""
    monkeypatch.setattr(stream, "_IN_MEMORY", 3 * SEGMENT)
    put: list[str] = []
    real = protected.made.vault.store.put_if_absent

    def recorded(name: str, pieces: Sequence[Piece]) -> bool:
        put.append(name)
        return real(name, pieces)

    monkeypatch.setattr(protected.made.vault.store, "put_if_absent", recorded)
    until = protected.board.now.recoverable_until
    protected.store.open_gate.clear()
    for number in range(2, 30):
        protected.accept(number, number, SEGMENT)
        begun = time.monotonic()
        protected.round(wait=0.01)
        assert time.monotonic() - begun < 1
        waiting = protected.stream._shipper.waiting()
        assert sum(each.size for each in waiting if each.pieces is not None) < 5 * SEGMENT
        assert protected.board.now.recoverable_until == until, "nothing was acknowledged since"
    figures = protected.board.now
    assert figures.state == "behind"
    assert (figures.messages_at_risk, figures.bytes_at_risk) == (28, 28 * SEGMENT)
    assert figures.backlog_bytes == sum(path.stat().st_size for path in backlog_of(protected)) > 20 * SEGMENT
    held = {path.name: path.read_bytes() for path in backlog_of(protected)}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in backlog_of(protected))
    body = protected.state[1][(5).to_bytes(16, "big")]
    assert not any(body[:64] in data for data in held.values()), "what waits is sealed"
    protected.store.open_gate.set()
    is_well(protected)
    names = [name for name in put if name.startswith("stream/")]
    assert names == sorted(names)
    assert len(names) == len(set(names))
    for name, data in held.items():
        epoch, number = name.removesuffix(".seg").split("-")
        stored = name_of("primary", int(epoch), int(number), int(number))
        assert protected.made.vault.store.get(stored, 1 << 30) == data
    assert protected.board.now.rebase_counts == {"first": 1}


def test_a_vault_that_was_gone_while_kumodr_was_stopped_and_killed(protected: Protected) -> None:
    """What lies in the backlog is shipped by the next run, which reads on behind it."""
    protected.store.broken = errors.StoreUnavailable("the vault is gone")
    protected.accept(2, 2, SEGMENT)
    protected.stop()
    assert len(backlog_of(protected)) == 1
    protected.store.broken = None
    protected.accept(3, 3)
    protected.round()
    protected.crash()
    protected.accept(4, 4)
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1}


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_vault_that_stumbles_is_tried_again(protected: Protected, fault: str) -> None:
    counted = protected.board.now.segments
    for number in range(2, 6):
        protected.store.faults = [fault, fault]
        protected.accept(number, number)
        protected.round()
        assert protected.board.now.segments == counted + number - 1
    assert protected.board.now.vault_errors == 8
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1}


def test_the_figures_of_a_vault_that_refuses(protected: Protected) -> None:
    protected.store.broken = errors.StoreReadOnly("the vault refuses it")
    until, segments = protected.board.now.recoverable_until, protected.board.now.segments
    protected.accept(2, 2)
    wait_for("an error", lambda: not protected.round(wait=0.01) and protected.board.now.vault_errors > 0)
    figures = protected.board.now
    assert figures.state == "behind"
    assert "refuses it" in str(figures.trouble)
    assert (figures.recoverable_until, figures.segments, figures.messages_at_risk) == (until, segments, 1)
    protected.store.broken = None
    is_well(protected)
    assert protected.board.now.trouble is None
    assert protected.board.now.recoverable_until > str(until)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB for the vault."""
    with mounted(tmp_path / "vault", "2m") as folder:
        yield folder


def test_a_vault_whose_disk_is_full_read_only_or_not_mounted(small_disk: Path, tmp_path: Path) -> None:
    with under_protection(tmp_path) as protected:

        def refused(words: str) -> None:
            protected.accept(2, protected.board.now.vault_errors, SEGMENT)
            errors_before = protected.board.now.vault_errors
            wait_for(
                "refusal",
                lambda: not protected.round(wait=0.01) and protected.board.now.vault_errors > errors_before,
            )
            assert words in str(protected.board.now.trouble)
            assert protected.board.now.state == "behind"

        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        refused("is full")
        ballast.unlink()
        is_well(protected)
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        refused("Read-only")
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        is_well(protected)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        subprocess.run(["mount", "--move", small_disk, elsewhere], check=True)
        try:
            refused("is gone")
            assert list(small_disk.iterdir()) == [], "what is left of a mount that went is not the vault"
        finally:
            subprocess.run(["mount", "--move", elsewhere, small_disk], check=True)
        is_well(protected)
        assert protected.board.now.rebase_counts == {"first": 1}


def test_a_vault_that_vanishes_and_comes_back(protected: Protected, tmp_path: Path) -> None:
    vault, elsewhere = tmp_path / "vault", tmp_path / "elsewhere"
    for empty in (False, True):
        vault.rename(elsewhere)
        if empty:
            vault.mkdir()
        protected.accept(2, 2 + empty)
        wait_for("an error", lambda: not protected.round(wait=0.01) and "is gone" in str(protected.board.now.trouble))
        protected.stop()
        protected.round(wait=0)
        if empty:
            assert list(vault.iterdir()) == []
            vault.rmdir()
        elsewhere.rename(vault)
        is_well(protected)


@pytest.mark.parametrize("kind", ["stalls", "refuses"])
def test_the_limit_of_the_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The disk holds what the plan allows and no more; that protection is lost is shown; then it begins anew."""
    limit = 5 * SEGMENT
    monkeypatch.setattr(stream, "_IN_MEMORY", 1)
    with under_protection(tmp_path, backlog=limit) as protected:
        if kind == "stalls":
            protected.store.open_gate.clear()
        else:
            protected.store.broken = errors.StoreUnavailable("the vault is gone")
        largest, states = 0, []
        for number in range(2, 12):
            protected.accept(number, number, SEGMENT)
            protected.stream.round() if protected.stream._writer else None
            states.append(protected.board.now.state)
            largest = max(largest, sum(path.stat().st_size for path in backlog_of(protected)))
            assert largest <= limit
        assert largest > limit // 2
        assert states[-1] == "lost"
        assert "protect.backlog" in str(protected.board.now.trouble) or kind == "refuses"
        assert backlog_of(protected) == []
        protected.store.broken = None
        protected.store.open_gate.set()
        is_well(protected)
        assert protected.board.now.rebase_counts == {"first": 1, "backlog": 1}
        assert "limit" in protected.board.now.rebases[-1].reason
        assert protected.board.now.epoch == 2


def test_a_disk_that_is_nearly_full_is_left_alone(protected: Protected, monkeypatch: pytest.MonkeyPatch) -> None:
    protected.store.broken = errors.StoreUnavailable("the vault is gone")
    monkeypatch.setattr(stream, "_IN_MEMORY", 1)
    real = os.statvfs

    def nearly_full(path: object) -> os.statvfs_result:
        found = list(real(path))  # type: ignore[call-overload]
        found[4] = found[2] // 25
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    protected.accept(2, 2)
    protected.round(wait=0)
    assert protected.board.now.state == "lost"
    assert backlog_of(protected) == []
    monkeypatch.undo()
    protected.store.broken = None
    is_well(protected)
    assert "5 % left" in protected.board.now.rebases[-1].reason


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[list[Path]], object]] = {
    "a bit of a body": lambda paths: flipped(paths[1], -20),
    "a bit of a head": lambda paths: flipped(paths[1], 30),
    "cut": lambda paths: os.truncate(paths[2], 500),
    "empty": lambda paths: os.truncate(paths[0], 0),
    "the first is gone": lambda paths: paths[0].unlink(),
    "one in the middle is gone": lambda paths: paths[1].unlink(),
    "the last is gone": lambda paths: paths[-1].unlink(),
    "all are gone": lambda paths: [path.unlink() for path in paths],
    "two changed places": lambda paths: (paths[0].rename("x"), paths[1].rename(paths[0]), Path("x").rename(paths[1])),
    "a directory": lambda paths: (paths[1].unlink(), paths[1].mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("when", ["between runs", "while it runs"])
def test_a_backlog_that_is_damaged(
    protected: Protected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, when: str
) -> None:
    """It is found out before anything of it gets a number in the vault; what is good goes on, or begins anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stream, "_IN_MEMORY", 1)
    protected.store.broken = errors.StoreUnavailable("the vault is gone")
    for number in range(2, 6):
        protected.accept(number, number, 2_000)
        protected.round(wait=0)
    paths = backlog_of(protected)
    assert len(paths) == 4
    if when == "between runs":
        protected.crash()
    DAMAGE[damage](paths)
    stray = paths[0].parent / "something else"
    stray.write_text("of somebody else")
    protected.store.broken = None
    if damage == "a directory":
        wait_for("a new epoch", lambda: not protected.round() and protected.board.now.rebase_counts.get("state lost"))
        paths[1].rmdir()
        protected.crash()
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "state lost": 1}
    assert stray.read_text() == "of somebody else"


def test_the_newest_segments_are_gone_from_the_vault(protected: Protected, tmp_path: Path) -> None:
    """A vault that was brought back from an older copy: what it lost is not papered over by later numbers."""
    protected.accept(2, 2)
    protected.round()
    names = sorted((tmp_path / "vault" / "stream" / "primary" / "00000001").glob("*.seg"))
    names[-1].unlink()
    protected.stop()
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "state lost": 1}


def test_the_number_of_an_epoch_that_lost_its_beginning_is_not_used_again(protected: Protected, tmp_path: Path) -> None:
    """Retention took the oldest segments, and the disk of the node how far it was."""
    for number in range(2, 6):
        protected.accept(number, number)
        protected.round()
    for path in sorted((tmp_path / "vault" / "stream" / "primary" / "00000001").glob("*.seg"))[:3]:
        path.unlink()
    (protected.made.state / "protect.json").unlink()
    protected.crash()
    protected.round()
    assert protected.board.now.epoch == 2


def test_another_loop_on_this_state_directory(
    protected: Protected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with exit code 7, and has touched nothing: not even what the first one is writing."""
    plan = tmp_path / "kumodr.yaml"
    plan.write_text(
        f"version: 1\nsite: primary\nvault: {{url: {tmp_path}/vault}}\nstate: {protected.made.state}\n"
        f"components: {{spool: {{meta: {protected.spool}/meta, data: {protected.spool}/data}}}}\n"
    )
    written = protected.made.state / "backlog" / ".00000001-0000000009.seg.4711"
    written.write_bytes(b"half of a segm")
    with locked(protected.made.state, "protect"):
        assert main(["protect", "--plan", str(plan)]) == errors.LOCKED
    assert "another protect" in capsys.readouterr().err
    assert written.exists()
    protected.crash()
    assert not written.exists(), "the next loop takes it away"


def test_what_ends_the_shipping_ends_the_loop(protected: Protected) -> None:
    """A bug on the shipping thread must not leave a loop that reads on and ships nothing."""
    protected.store.broken = ZeroDivisionError("a bug")  # type: ignore[assignment]
    protected.accept(2, 2)
    with pytest.raises(ZeroDivisionError):
        wait_for("the end", lambda: bool(protected.round(wait=0.01)))
    protected.store.broken = None
    protected.crash()
    is_well(protected)
