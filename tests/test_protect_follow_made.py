"""Follow logs that were made here, byte by byte: states that a real database is rarely seen in."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from wal_bytes import batch_of, database_of, log_of

from kumodr import errors
from kumodr.protect.wal.follow import Follower, start_of
from kumodr.protect.wal.records import WalUnusable


def test_a_missed_log_shows_also_where_the_limit_ends_all_that_is_there(tmp_path: Path) -> None:
    folder = database_of(tmp_path / "spool", last_sequence=2)
    log = log_of([batch_of(1, [(b"a" * 16, b"first")])])
    (folder / "000005.log").write_bytes(log)
    (folder / "000007.log").touch()
    with closing(Follower(folder, start_of(folder))) as follower:
        with pytest.raises(WalUnusable, match="1 writes that the MANIFEST tells are in no log"):
            follower.advance({}, len(log))
        assert follower.cursor.sequence == 2


def test_a_tail_is_read_anew_with_every_advance(tmp_path: Path) -> None:
    """Where a system shows a file's new size before its bytes, the bytes are there the next time."""
    folder = database_of(tmp_path / "spool")
    log = log_of([batch_of(1, [(b"a" * 16, b"first")]), batch_of(2, [(b"b" * 16, b"second")])])
    path = folder / "000005.log"
    changed: dict[bytes, bytes | None] = {}
    path.write_bytes(log[:-30] + bytes(30))
    with closing(Follower(folder, start_of(folder))) as follower:
        for missing in (25, 20, 1):
            path.write_bytes(log[:-missing] + bytes(missing))
            assert follower.advance(changed, 1 << 20).puts == (1 if missing == 25 else 0)
        path.write_bytes(log)
        assert follower.advance(changed, 1 << 20).puts == 1
    assert changed == {b"a" * 16: b"first", b"b" * 16: b"second"}


def link_to_a_secret(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("make", [link_to_a_secret, os.mkfifo, Path.mkdir])
def test_a_log_that_is_no_file_is_neither_followed_nor_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = database_of(tmp_path / "spool")
    (folder / "000005.log").write_bytes(log_of([batch_of(1, [(b"a" * 16, b"first")])]))
    with closing(Follower(folder, start_of(folder))) as follower:
        make(folder / "000006.log")
        with pytest.raises(errors.SpoolUnreadable):
            follower.advance({}, 1 << 20)
        assert follower.behind() > 0
    with pytest.raises(errors.SpoolUnreadable):
        start_of(folder)


def test_a_directory_without_logs_has_no_present(tmp_path: Path) -> None:
    with pytest.raises(WalUnusable, match="no write-ahead log"):
        start_of(database_of(tmp_path / "spool"))
    with pytest.raises(WalUnusable, match="directory is gone"):
        start_of(tmp_path / "nowhere")


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("size", [300, 9_000_000])
def test_the_present_is_found_without_reading_the_log(tmp_path: Path, size: int) -> None:
    folder = database_of(tmp_path / "spool")
    entries = [(number.to_bytes(16, "big"), bytes(size)) for number in range(18_000_000 // size)]
    log = log_of([batch_of(number, [entry]) for number, entry in enumerate(entries, 1)])
    (folder / "000005.log").write_bytes(log)
    before = bytes_read()
    cursor = start_of(folder)
    assert bytes_read() - before < size + 200_000
    assert cursor.sequence == len(entries)
    with closing(Follower(folder, cursor)) as follower:
        changed: dict[bytes, bytes | None] = {}
        assert follower.advance(changed, 1 << 30).puts == 1
        assert list(changed) == [entries[-1][0]]
