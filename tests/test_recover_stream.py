"""Base and stream together are the spool as of any moment: at every boundary, of both kinds, and where it breaks."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import spool_samples as samples
from streamed_site import KINDS, Site, flip, swap
from streams import Stream, base, brought_back, chosen, content
from vaults import START, Bench, bench

from kumodr import errors
from kumodr.recover.target import MARKER
from kumodr.vault.facts import StreamJoin
from kumodr.vault.segment import LogPiece, name_of


@pytest.mark.parametrize("kind", KINDS)
def test_every_second_can_be_restored(kind: str, tmp_path: Path) -> None:
    site = Site(tmp_path, kind, 8)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    site.proves(tmp_path / "newest", 8)
    for second in range(9):
        at = site.stream.taken(second)
        site.proves(tmp_path / f"at-{second}", second, at=at)
        site.proves(tmp_path / f"after-{second}", second, at=at + timedelta(milliseconds=999))
    site.proves(tmp_path / "alone", 0, wanted="primary-1")
    site.proves(tmp_path / "without", 0, streamed=False)
    with pytest.raises(errors.PointMissing):
        chosen(site.made, at=START - timedelta(seconds=1))


@pytest.mark.parametrize("kind", KINDS)
def test_rollups_give_the_same_as_what_they_repeat(kind: str, tmp_path: Path) -> None:
    site = Site(tmp_path, kind, 12)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    for first, last in ((1, 4), (5, 8), (9, 11), (1, 8)):
        site.stream.roll(first, last)
    site.proves(tmp_path / "newest", 12)
    state = brought_back(site.made, tmp_path / "again").stream
    assert state is not None
    assert (state.rollups, state.segments) == (2, 1)
    for second in (3, 4, 6, 8, 10):
        site.proves(tmp_path / f"at-{second}", second, at=site.stream.taken(second))
    for name in site.stream.names[:11]:
        (tmp_path / "vault" / name).unlink()
    site.proves(tmp_path / "pruned", 12)
    site.proves(tmp_path / "coarser", 8, at=site.stream.taken(10))


def test_a_base_joins_in_the_middle_and_not_before_it_is_whole(tmp_path: Path) -> None:
    """A base that was read while the stream went on: it may hold anything between two seconds."""
    site = Site(tmp_path, "rocksdb", 10)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    later = tmp_path / "later"
    meta, data = site.states[4][0], site.states[6][1]  # the halves are never of the same moment
    samples.write_spool(later / "spool", "rocksdb", meta, data)
    (later / "logs").mkdir()
    (later / "logs" / "open").write_bytes(site.logs[5])
    base(site.made, later, StreamJoin(1, 4, 7), site.stream.taken(4))
    for second in (7, 8, 10):
        target = tmp_path / f"at-{second}"
        brought_back(site.made, target, at=site.stream.taken(second))
        assert content(target / "spool") == site.states[second]
        marker = json.loads((target / MARKER).read_text())
        assert (marker["components"]["spool"]["point"], marker["stream"]["first"]) == ("primary-2", 4)
    for second in (4, 5, 6):  # the base was begun, but is not whole yet: the older one with its stream is
        site.proves(tmp_path / f"older-{second}", second, at=site.stream.taken(second))
    site.stream.roll(1, 5)
    site.stream.roll(6, 10)
    target = tmp_path / "from a roll-up that began before"
    brought_back(site.made, target)
    assert content(target / "spool") == site.states[10]


def test_no_state_ends_in_the_middle_of_a_moment(tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 2)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    one, two = samples.key(number=901), samples.key(number=902)
    site.stream.add({one: samples.meta()}, {}, partial=True)
    site.proves(tmp_path / "before", 2)
    site.stream.add({}, {one: b"body"}, partial=True)
    site.stream.add({two: samples.meta()}, {two: b"body"})
    target = tmp_path / "after"
    brought_back(site.made, target)
    assert content(target / "spool")[1] == site.states[2][1] | {one: b"body", two: b"body"}
    brought_back(site.made, tmp_path / "at", at=site.stream.taken(4))
    assert content(tmp_path / "at" / "spool") == site.states[2]
    # The last part of the moment is damaged: what was read of it must not stay.
    flip(tmp_path / "vault" / site.stream.names[4])
    recovered = brought_back(site.made, tmp_path / "damaged")
    assert content(tmp_path / "damaged" / "spool") == site.states[2]
    assert site.stream.names[4] in str(recovered.problems[0])


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "missing": lambda path, _: path.unlink(),
    "flipped": lambda path, _: flip(path),
    "head changed": lambda path, _: flip(path, 40),
    "cut": lambda path, _: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path, _: path.write_bytes(path.read_bytes() + b"x"),
    "empty": lambda path, _: path.write_bytes(b""),
    "swapped": lambda path, other: swap(path, other),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_comes_before_damage_stays_usable(damage: str, tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 7)
    base(site.made, site.folder, StreamJoin(1, 1, 2))
    paths = [tmp_path / "vault" / name for name in site.stream.names]
    DAMAGES[damage](paths[4], paths[5])
    state = chosen(site.made)
    recovered = brought_back(site.made, tmp_path / "back")
    assert content(tmp_path / "back" / "spool") == site.states[4]
    assert site.stream.names[4] in " ".join(map(str, (*state.problems, *recovered.problems)))
    site.proves(tmp_path / "earlier", 3, at=site.stream.taken(3))
    # A roll-up over the damage bridges it; damage in the roll-up is bridged by what it repeats.
    site.stream.roll(4, 6)
    site.proves(tmp_path / "bridged", 7)
    rolled = tmp_path / "vault" / site.stream.roll(1, 3).name
    flip(rolled)
    site.proves(tmp_path / "both", 7)


def test_before_it_is_whole_only_the_base_counts(tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 7)
    base(site.made, site.folder, StreamJoin(1, 1, 5))
    flip(tmp_path / "vault" / site.stream.names[3])
    recovered = brought_back(site.made, tmp_path / "back")
    assert content(tmp_path / "back" / "spool") == site.states[0]
    assert site.stream.names[3] in str(recovered.problems[0])
    assert json.loads((tmp_path / "back" / "evidence" / "evidence.json").read_text())["stream"] is None
    (tmp_path / "vault" / site.stream.names[3]).unlink()
    site.proves(tmp_path / "missing", 0)


def test_a_fork_and_a_foreign_signature_end_the_range(tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 5)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    other = bench(tmp_path / "other")
    forged = Stream(site.made, number=5, hash=site.stream.hash)
    forged.made = Bench(tmp_path, site.made.vault, site.made.identity, other.key)
    segment = forged.add({samples.key(number=900): samples.meta()}, put=False)
    assert segment.name == name_of("primary", 1, 6, 6)
    site.made.vault.store.put_if_absent(segment.name, segment.pieces)
    state = chosen(site.made)
    assert state.stream is not None
    assert state.stream.extent.last == 6, "the vault's own list says that this key counts"
    pinned = {"primary": frozenset([site.made.key.public])}
    from kumodr.recover.choose import choose_state
    from kumodr.vault.points import survey

    found = choose_state(site.made.vault, survey(site.made.vault, pinned).points, pinned)
    assert found.stream is not None
    assert found.stream.extent.last == 5
    assert "does not name" in str(found.problems[0])
    fork = Stream(site.made, number=6, hash="f" * 64)
    fork.add({})
    recovered = brought_back(site.made, tmp_path / "fork")
    assert recovered.stream is not None
    assert recovered.stream.last == 6
    assert "does not follow" in str(recovered.problems[0])


@pytest.mark.parametrize(
    "path", ["../out", "/etc/out", "1-logs/../../out", "", "a//b", "link/out", "1-logs/open/below", "pipe"]
)
def test_a_hostile_log_path_is_refused_and_nothing_is_left(path: str, tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 1)
    (tmp_path / "elsewhere").mkdir()
    made = site.made
    base(made, site.folder, StreamJoin(1, 1, 1))
    site.stream.add(logs=(LogPiece(path, 0, b"evil", 0o600, 0),))
    target = tmp_path / "back"
    if path in ("link/out", "pipe"):
        from kumodr.recover.logpieces import LogPieces

        target.mkdir()
        (target / "link").symlink_to(tmp_path / "elsewhere")
        (target / "pipe").symlink_to(tmp_path / "elsewhere" / "file")
        with pytest.raises(errors.ManifestUnsafe):
            LogPieces(target).apply([LogPiece(path, 0, b"evil", 0o600, 0)])
    else:
        with pytest.raises(errors.ManifestUnsafe):
            brought_back(made, target)
        assert not target.exists()
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_log_with_a_gap_is_named_and_not_mended(tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 1)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    site.stream.add(
        logs=(LogPiece("1-logs/open", 1000, b"late", 0o640, 0), LogPiece("1-logs/new", 0, b"new", 0o440, 5))
    )
    recovered = brought_back(site.made, tmp_path / "back")
    (logs,) = (each for each in recovered.components if each.chosen.section.component == "logs")
    assert any("1-logs/open lacks the bytes" in text for text in logs.imperfections)
    assert (tmp_path / "back" / "logs" / "1-logs" / "open").read_bytes() == site.logs[1]
    new = tmp_path / "back" / "logs" / "1-logs" / "new"
    assert (new.read_bytes(), new.stat().st_mode & 0o777, new.stat().st_mtime_ns) == (b"new", 0o440, 5)


def test_one_component_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, "localdisk", 3)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    brought_back(site.made, tmp_path / "spool only", components=["spool"])
    assert content(tmp_path / "spool only" / "spool") == site.states[3]
    assert json.loads((tmp_path / "spool only" / "evidence" / "evidence.json").read_text())["logs_until"] is None
    brought_back(site.made, tmp_path / "logs only", components=["logs"])
    assert (tmp_path / "logs only" / "logs" / "1-logs" / "open").read_bytes() == site.logs[3]
    assert not (tmp_path / "logs only" / "evidence").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_fails_in_the_middle_leaves_nothing(kind: str, tmp_path: Path) -> None:
    site = Site(tmp_path, kind, 6)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    state = chosen(site.made)

    class Failing:
        left = 0

        def __getattr__(self, name: str) -> object:
            return getattr(site.made.vault.store, name)

        def get(self, name: str, limit: int) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise errors.StoreUnavailable("the vault is gone")
            return site.made.vault.store.get(name, limit)

    from dataclasses import replace

    from vaults import quiet

    from kumodr.recover.restore import restore

    failing = Failing()
    finished = False
    for calls in range(0, 60, 3):
        failing.left = calls
        vault = replace(site.made.vault, store=failing)  # type: ignore[arg-type]
        try:
            restore(vault, state, site.made.identities, tmp_path / "back", {}, clock=lambda: START, progress=quiet)
            finished = True
            break
        except errors.StoreUnavailable:
            assert not (tmp_path / "back").exists()
    assert finished
    assert content(tmp_path / "back" / "spool") == site.states[6]


def test_the_wrong_key_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 2)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    site.made.identity = bench(tmp_path / "other").identity
    with pytest.raises(errors.WrongKey):
        brought_back(site.made, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_change_that_got_lost_on_the_way_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kumodr.recover import halves

    site = Site(tmp_path, "rocksdb", 3)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    whole = halves.RocksHalf.put
    lost = {next(key for key, value in site.stream.contents[1].data.items() if value is not None)}

    def losing(self: halves.RocksHalf, changes: dict[bytes, bytes | None]) -> None:
        whole(self, {key: value for key, value in changes.items() if key not in lost})

    monkeypatch.setattr(halves.RocksHalf, "put", losing)
    with pytest.raises(errors.ComponentDamaged, match="which the stream put"):
        brought_back(site.made, tmp_path / "back")

    def changing(self: halves.RocksHalf, changes: dict[bytes, bytes | None]) -> None:
        whole(self, {key: b"other" if key in lost else value for key, value in changes.items()})

    monkeypatch.setattr(halves.RocksHalf, "put", changing)
    with pytest.raises(errors.ComponentDamaged, match="than the stream put"):
        brought_back(site.made, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_large_stream_is_settled_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from kumodr.recover import settle
    from kumodr.recover.journal import Journal
    from kumodr.vault.segment import PackedChanges

    monkeypatch.setattr(settle, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(settle, "_processors", lambda: 3)
    site = Site(tmp_path, "rocksdb", 6)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    spread = {bytes([first]) * 16: samples.meta() for first in range(0, 256, 3)}
    short = {b"short": samples.meta(), b"\xff\xff": samples.meta()}
    site.stream.add(spread | short, spread)
    gone = dict.fromkeys([*list(spread)[::2], b"short"])
    site.stream.add(gone, gone)
    brought_back(site.made, tmp_path / "back")
    left = {key: value for key, value in spread.items() if key not in gone}
    meta, data = content(tmp_path / "back" / "spool")
    assert meta == site.states[6][0] | left | {b"\xff\xff": short[b"\xff\xff"]}
    assert data == site.states[6][1] | left
    ids = (tmp_path / "back" / "evidence" / "finished.ids").read_bytes()
    finished = site.deleted(1, 6) | {key for key in gone if len(key) == 16}
    assert sorted(ids[at : at + 16] for at in range(0, len(ids), 16)) == sorted(finished)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["evidence", MARKER, "logs", "spool"]
    assert not list((tmp_path / "back").rglob("rocksdict-config.json"))
    whole = Journal.note

    def other(self: Journal, changes: PackedChanges) -> None:
        whole(
            self, replace(changes, others={key: b"other" if value else value for key, value in changes.others.items()})
        )

    monkeypatch.setattr(Journal, "note", other)
    with pytest.raises(errors.ComponentDamaged, match="than the stream put"):
        brought_back(site.made, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_step_a_restore_is_marked_only_when_whole(kind: str, tmp_path: Path) -> None:
    site = Site(tmp_path, kind, 3)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    (tmp_path / "key.txt").write_text(site.made.identity.secret)
    program = Path(__file__).with_name("standby_child.py")
    words = [sys.executable, str(program), str(tmp_path / "vault"), str(tmp_path / "key.txt")]
    marked = 0
    for step in range(1, 2000, 17 if kind == "rocksdb" else 61):
        target = tmp_path / f"back-{step}"
        died = subprocess.run([*words, str(target), str(step), "restore"], capture_output=True, text=True)
        assert died.returncode in (0, -signal.SIGKILL), died.stderr
        if (target / MARKER).exists():
            marked += 1
            assert content(target / "spool") == site.states[3]
            assert json.loads((target / "evidence" / "evidence.json").read_text())["stream"]["last"] == 3
        else:
            assert died.returncode
        if not died.returncode:
            break
    assert marked


@pytest.mark.parametrize("name", ["rocksdb-killed", "localdisk-killed", "rocksdb-killed-many-flushes"])
def test_a_captured_spool_of_a_real_server_is_gone_on_with(
    name: str, unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    from kumodr.spool.copyrule import why_not_copy

    folder = unpacked(name)
    meta, data = content(folder / "spool")
    made = bench(tmp_path)
    base(made, folder, StreamJoin(1, 1, 1))
    stream = Stream(made)
    ids = sorted(meta)
    gone = ids[::3]
    again = {key: meta[key] for key in gone[::2]}
    new = {samples.key(number=number): samples.meta() for number in range(50)}
    stream.add(dict.fromkeys(gone), dict.fromkeys(gone))
    stream.add(new | again, dict.fromkeys((*new, *again), b"body"))
    stream.add({ids[1]: b"{}"}, {})
    stream.roll(1, 2)
    brought_back(made, tmp_path / "back")
    left = {key: value for key, value in meta.items() if key not in gone}
    bodies = {key: value for key, value in data.items() if key not in gone}
    spool = tmp_path / "back" / "spool"
    assert content(spool) == (left | again | new | {ids[1]: b"{}"}, bodies | dict.fromkeys((*again, *new), b"body"))
    finished = (tmp_path / "back" / "evidence" / "finished.ids").read_bytes()
    assert {finished[at : at + 16] for at in range(0, len(finished), 16)} == set(gone) - set(again)
    assert why_not_copy(spool / "meta", spool / "data", "auto") is None
    owner = (spool / "data").stat()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in spool.rglob("*")} == {(owner.st_uid, owner.st_gid)}
