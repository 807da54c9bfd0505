"""Follow the logs of real databases that are written, flushed, reopened, killed, damaged and replaced meanwhile."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from wal_database import WalDatabase, digests, read_all, untouched, value, why_unusable

from kumodr.protect.wal.follow import Cursor, Follower, start_of
from kumodr.protect.wal.records import WalUnusable


@pytest.fixture
def database(tmp_path: Path) -> Iterator[WalDatabase]:
    found = WalDatabase(tmp_path / "spool")
    yield found
    found.kill()


@contextmanager
def following(database: WalDatabase) -> Iterator[tuple[Follower, dict[bytes, bytes | None]]]:
    """A follower from the present on, with what it read; at the end it must have read exactly what is there."""
    cursor = start_of(database.path)
    base = database.dump()
    changed: dict[bytes, bytes | None] = {}
    with closing(Follower(database.path, cursor)) as follower:
        yield follower, changed
        read_all(follower, changed)
    assert digests(changed, base) == database.dump()


def logs_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def held_files(folder: Path) -> list[str]:
    """The names of files of a folder that this process holds open; of unlinked ones with ` (deleted)`."""
    found: list[str] = []
    for entry in os.scandir("/proc/self/fd"):
        try:
            target = os.readlink(entry.path)
        except FileNotFoundError:
            continue
        if target.startswith(f"{folder}/") and ".log" in target:
            found.append(target.rpartition("/")[2])
    return sorted(found)


def test_puts_deletes_and_batches_come_with_the_last_word_per_key(database: WalDatabase) -> None:
    with following(database) as (follower, changed):
        database.put(1, 10)
        database.put(2, 20, 40_000)
        database.tell("batch", (3, 30, 5), (1, None, 0), (3, 31, 6))
        advance = follower.advance(changed, 1 << 20)
        assert changed == {
            (1).to_bytes(16, "big"): None,
            (2).to_bytes(16, "big"): value(20, 40_000),
            (3).to_bytes(16, "big"): value(31, 6),
        }
        assert (advance.puts, advance.deletes, advance.put_bytes) == (4, 1, 100 + 40_000 + 5 + 6)
        assert not advance.more and advance.bytes > 40_000


def test_following_beside_threads_that_write_without_a_pause(tmp_path: Path) -> None:
    """The follower reads while the log grows and rotates; where it is kept from looking for long, it says so."""
    for attempt in range(5):
        database = WalDatabase(tmp_path / f"spool-{attempt}", buffer=6 << 20)
        try:
            with following(database) as (follower, changed):
                database.send("together", 4, 3000, 2000)
                rounds = entries = 0
                while entries < 4 * 3000:
                    advance = follower.advance(changed, 300_000)
                    entries += advance.puts + advance.deletes
                    rounds += advance.bytes > 0
                database.wait()
                assert rounds > 20 and entries == 4 * 3000
            return
        except WalUnusable as reason:
            assert "a log was missed" in str(reason)
        finally:
            database.kill()
    raise AssertionError("a log was missed each time")


@pytest.mark.parametrize("how", ["clean", "killed", "flushed", "flushed when empty", "killed twice", "idle"])
def test_the_sequence_goes_on_over_a_restart(database: WalDatabase, how: str) -> None:
    def restart() -> None:
        if how == "clean":
            database.tell("reopen")
        elif how == "flushed":
            database.tell("flush")
        elif how == "flushed when empty":
            database.tell("flush")
            database.tell("flush")
            database.tell("reopen")
            database.tell("reopen")
        elif how.startswith("killed"):
            for _ in range(2 if how == "killed twice" else 1):
                database.kill()
                database.start()

    with following(database) as (follower, changed):
        for turn in range(4):
            for number in range(turn * 10, turn * 10 + 7):
                database.put(number, turn, 3000)
            database.delete(turn * 10)
            expected = database.tell("sequence") + 1
            if turn % 2:
                read_all(follower, changed)
            restart()
            read_all(follower, changed)
            assert follower.cursor.sequence == expected


def test_a_server_killed_in_the_middle_of_writing_again_and_again(tmp_path: Path) -> None:
    database = WalDatabase(tmp_path / "spool", buffer=1 << 20)
    with following(database) as (follower, changed):
        for trial in range(12):
            database.put(trial, trial)
            for number in range(60):
                database.send("write", number % 40, None if number % 3 == 2 else trial * 100 + number, 5000)
            for _ in range(trial):
                read_all(follower, changed)
            database.kill()
            read_all(follower, changed)
            database.start()
            read_all(follower, changed)
        assert len(changed) >= 12
    database.kill()


def test_a_record_that_was_cut_off_by_the_kill_is_passed_over(database: WalDatabase) -> None:
    with following(database) as (follower, changed):
        database.put(1, 1)
        database.put(2, 2, 50_000)
        database.kill()
        log = logs_of(database.path)[-1]
        os.truncate(log, log.stat().st_size - 20_000)
        read_all(follower, changed)
        assert list(changed) == [(1).to_bytes(16, "big")]
        assert follower.behind() > 10_000
        database.start()
        database.put(3, 3)
        read_all(follower, changed)
        assert follower.behind() == 0 and (2).to_bytes(16, "big") not in changed


def test_a_log_that_lost_what_was_read_of_it_is_refused(database: WalDatabase) -> None:
    cursor = start_of(database.path)
    database.put(1, 1)
    database.put(2, 2, 500)
    with closing(Follower(database.path, cursor)) as follower:
        read_all(follower, {})
        database.kill()
        log = logs_of(database.path)[-1]
        os.truncate(log, log.stat().st_size - 300)
        assert "is shorter than what was read of it" in why_unusable(follower)
        database.start()
        database.put(3, 3)
        read_again = follower.cursor
        assert why_unusable(follower)
        assert follower.cursor == read_again


def test_numbers_that_come_again_are_refused(database: WalDatabase) -> None:
    database.put(1, 1)
    before = start_of(database.path)
    database.put(2, 2)
    cursor = start_of(database.path)
    assert cursor.sequence is not None
    with closing(Follower(database.path, replace(cursor, sequence=cursor.sequence + 1))) as follower:
        assert "came again" in why_unusable(follower)
    with closing(Follower(database.path, replace(cursor, offset=before.offset))) as follower:
        assert "came again" in why_unusable(follower)


@pytest.mark.parametrize("then", ["idle", "another write"])
def test_a_log_that_came_and_went_unseen_shows_at_once(tmp_path: Path, then: str) -> None:
    database = WalDatabase(tmp_path / "spool", compact=False)
    database.put(1, 1)
    with closing(Follower(database.path, start_of(database.path))) as follower:
        read_all(follower, {})
        for number in range(60):
            database.put(number, number, 20_000)
        database.tell("flush")
        if then == "another write":
            database.put(1, 1)
        assert "a log was missed" in why_unusable(follower)
    database.kill()


def test_writes_without_a_log_show_with_their_flush(database: WalDatabase) -> None:
    with closing(Follower(database.path, start_of(database.path))) as follower:
        database.tell("unlogged")
        database.tell("flush")
        assert "1 writes that the MANIFEST tells are in no log" in why_unusable(follower)


def test_a_deleted_range_is_refused_and_the_cursor_stays_before_it(database: WalDatabase) -> None:
    with closing(Follower(database.path, start_of(database.path))) as follower:
        database.put(1, 1)
        database.tell("range")
        changed: dict[bytes, bytes | None] = {}
        for _ in range(2):
            with pytest.raises(WalUnusable, match="a range of messages was deleted at once"):
                read_all(follower, changed)
        assert list(changed) == [(1).to_bytes(16, "big")]
        assert follower.cursor.sequence == 2


def test_a_cursor_survives_being_stored(database: WalDatabase) -> None:
    database.put(1, 1)
    cursor = start_of(database.path)
    assert Cursor.of(cursor.document()) == cursor
    for wrong in ({}, {**cursor.document(), "log": "5"}, {**cursor.document(), "offset": -1}):
        with pytest.raises(ValueError):
            Cursor.of(wrong)


def replaced_directory(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    shutil.copytree(folder.with_name("old"), folder)


def another_identity(folder: Path) -> None:
    (folder / "IDENTITY").write_text("00000000-0000-0000-0000-000000000000")


def another_file(folder: Path) -> None:
    log = logs_of(folder)[-1]
    shutil.copy(log, folder / "copy")
    os.replace(folder / "copy", log)


def older_state(folder: Path) -> None:
    for path in logs_of(folder):
        path.rename(path.with_name("000001.log"))


REPLACED: dict[str, tuple[Callable[[Path], None], str]] = {
    "directory": (replaced_directory, "the database's directory was replaced by another one"),
    "identity": (another_identity, "the database was replaced by another one"),
    "no identity": (lambda folder: (folder / "IDENTITY").unlink(), "the database has no IDENTITY"),
    "log": (another_file, "another file took the place of the log"),
    "logs with lower numbers": (older_state, "there is no newer one: the database went back"),
    "all gone": (shutil.rmtree, "the database's directory is gone"),
    "CURRENT": (lambda folder: (folder / "CURRENT").unlink(), "CURRENT is missing"),
    "CURRENT damaged": (lambda folder: (folder / "CURRENT").write_text("?"), "CURRENT names no MANIFEST"),
    "MANIFEST": (lambda folder: (folder / "CURRENT").write_text("MANIFEST-999999\n"), "MANIFEST-999999 cannot be read"),
}


@pytest.mark.parametrize("what", list(REPLACED))
def test_what_is_no_longer_the_same_database_is_refused_with_its_reason(tmp_path: Path, what: str) -> None:
    database = WalDatabase(tmp_path / "spool")
    database.put(1, 1)
    database.kill()
    change, reason = REPLACED[what]
    with closing(Follower(database.path, start_of(database.path))) as follower:
        read_all(follower, {})
        change(database.path)
        assert reason in why_unusable(follower)
        assert follower.behind() == 0


def test_a_stored_cursor_is_refused_where_it_is_not_of_this_place(database: WalDatabase) -> None:
    database.put(1, 1)
    cursor = start_of(database.path)
    text, inode, start = cursor.identity.split("/")
    database.put(2, 2, 40_000)
    reasons: set[str] = set()
    for other in (
        replace(cursor, identity=f"x{text}/{inode}/{start}"),
        replace(cursor, identity=f"{text}/{inode}1/{start}"),
        replace(cursor, identity=f"{text}/{inode}/another-start"),
        replace(cursor, log=cursor.log - 1),
        replace(cursor, offset=cursor.offset + 1_000_000),
        replace(cursor, offset=cursor.offset + 2),
    ):
        with closing(Follower(database.path, other)) as follower:
            reasons.add(why_unusable(follower))
    assert len(reasons) == 6


def test_logs_are_held_while_they_are_needed_and_no_longer(database: WalDatabase) -> None:
    changed: dict[bytes, bytes | None] = {}
    database.put(0, 0)
    with closing(Follower(database.path, start_of(database.path))) as follower:
        assert len(held_files(database.path)) == 1
        for number in range(30):
            database.put(number, number, 20_000)
            assert follower.behind() >= number * 20_000
        assert sum("deleted" in name for name in held_files(database.path)) > 2
        read_all(follower, changed)
        database.tell("flush")
        read_all(follower, changed)
        assert held_files(database.path) == [logs_of(database.path)[-1].name]
        assert follower.behind() == 0 and len(changed) == 30
    assert held_files(database.path) == []


def test_an_unlinked_log_is_let_go_also_while_the_server_is_idle(database: WalDatabase) -> None:
    database.put(1, 1)
    with following(database) as (follower, changed):
        database.tell("reopen")
        read_all(follower, changed)
        assert held_files(database.path) == [path.name for path in logs_of(database.path)]


def test_an_empty_log_beside_the_one_in_use_is_not_gone_to(database: WalDatabase) -> None:
    """A log whose creation failed stays behind empty, and the old one goes on."""
    with following(database) as (follower, changed):
        (database.path / "999999.log").touch()
        database.put(1, 1)
        read_all(follower, changed)
        database.put(2, 2)
        read_all(follower, changed)
        assert len(changed) == 2
        (database.path / "999999.log").unlink()


@pytest.mark.parametrize("limit", [1, 50_000, 1 << 30])
def test_reading_stops_at_the_limit_and_goes_on(database: WalDatabase, limit: int) -> None:
    with following(database) as (follower, changed):
        for number in range(20):
            database.put(number, number, 20_000)
            follower.behind()
        while True:
            before = len(changed)
            advance = follower.advance(changed, limit)
            assert len(changed) - before <= limit // 20_000 + 1
            if not advance.more:
                break
        assert len(changed) == 20


def test_following_changes_nothing_in_the_directory(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    folder = unpacked("rocksdb-killed") / "spool" / "meta"
    before = untouched(folder)
    cursor = start_of(folder)
    with closing(Follower(folder, cursor)) as follower:
        assert read_all(follower, {}) == 1
        assert follower.behind() == 0
    assert untouched(folder) == before


def test_the_log_of_a_real_server_is_followed_from_its_beginning(unpacked: Callable[[str], Path]) -> None:
    folder = unpacked("rocksdb-killed") / "spool" / "data"
    first = int(logs_of(folder)[0].stem)
    beginning = replace(start_of(folder), log=first, offset=0, sequence=None)
    changed: dict[bytes, bytes | None] = {}
    with closing(Follower(folder, beginning)) as follower:
        entries = read_all(follower, changed, 10_000)
        assert entries > 500 and follower.cursor.sequence == entries + 1
