"""kumodr stops or is killed, things happen to the spool, and it starts again: a new base only where one is needed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from protected import Protected, is_well, under_protection

from kumodr.protect import shipper, stream


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "_FIRST_PAUSE", 0.002)
    monkeypatch.setattr(shipper, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(stream, "_PAUSES", (0.002,))


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Protected]:
    with under_protection(tmp_path) as made:
        yield made


@pytest.mark.parametrize("server", ["restarts", "is killed", "flushes"])
def test_what_was_read_is_flushed_and_its_log_unlinked(protected: Protected, server: str) -> None:
    """The next log goes on with the number that is due, so nothing was missed and no base is needed."""
    protected.accept(2, 2)
    protected.stop()
    if server == "restarts":
        protected.server.restart()
    elif server == "is killed":
        protected.server.kill()
        protected.server.start()
    else:
        protected.server.flush()
    protected.accept(3, 3)
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1}


def test_what_was_not_read_is_flushed_and_its_log_unlinked(protected: Protected) -> None:
    protected.stop()
    protected.accept(2, 2)
    protected.server.flush()
    is_well(protected)
    assert protected.board.now.rebase_counts == {"first": 1, "spool": 1}
    assert "a log was missed" in protected.board.now.rebases[-1].reason


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 4])
def test_an_older_copy_is_put_into_the_same_directories(protected: Protected, writes: int) -> None:
    """However much was written to it since: where its numbers are not those that are due, a new base is."""
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
