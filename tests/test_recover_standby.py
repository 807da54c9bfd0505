"""A standby follows the stream as it comes, survives every kill, and is promoted to what a restore would give."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spool_samples as samples
from streamed_site import KINDS, Site
from streams import Stream, base, brought_back, content
from vaults import START, quiet

from kumodr import errors
from kumodr.components.registry import vetter
from kumodr.recover import standbyfile
from kumodr.recover.promote import promote
from kumodr.recover.standby import Standby
from kumodr.recover.target import MARKER
from kumodr.vault.facts import StreamJoin
from kumodr.vault.segment import LogPiece


def begun(site: Site, seconds: int, *, join: StreamJoin | None = None) -> list[tuple[Path, bytes]]:
    """Store the base and keep all but the first segments away; return them, to be put later."""
    base(site.made, site.folder, join or StreamJoin(1, 1, 1))
    kept: list[tuple[Path, bytes]] = []
    for name in site.stream.names[seconds:]:
        path = site.made.folder / "vault" / name
        kept.append((path, path.read_bytes()))
        path.unlink()
    return kept


def arrive(kept: list[tuple[Path, bytes]], count: int = 1) -> None:
    for _ in range(count):
        path, data = kept.pop(0)
        path.write_bytes(data)


def standby_of(site: Site, target: Path, **words: Any) -> Standby:
    vault = replace(site.made.vault, **words)
    return Standby(vault, site.made.identities, target, lambda: site.stream.taken(60), quiet)


def promoted(site: Site, target: Path) -> None:
    promote(target, {name: vetter(name, lambda: START) for name in ("spool", "logs")}, lambda: START)


def finished(target: Path) -> list[bytes]:
    ids = (target / "evidence" / "finished.ids").read_bytes()
    return sorted(ids[at : at + 16] for at in range(0, len(ids), 16))


def same_as_restored(site: Site, target: Path, again: Path) -> None:
    """Compare a promoted standby with a restore of the same moment."""
    brought_back(site.made, again)
    assert content(target / "spool") == content(again / "spool")
    assert finished(target) == finished(again)
    assert (target / "logs/1-logs/open").read_bytes() == (again / "logs/1-logs/open").read_bytes()
    documents = [json.loads((each / "evidence" / "evidence.json").read_text()) for each in (target, again)]
    assert documents[0]["spool_until"] == documents[1]["spool_until"]
    assert documents[0]["logs_until"] == documents[1]["logs_until"]
    assert documents[0]["stream"]["last"] == documents[1]["stream"]["last"]
    marks = [json.loads((each / MARKER).read_text())["components"]["spool"] for each in (target, again)]
    assert [(mark["point"], mark["until"], mark["facts"]) for mark in marks] == [
        (marks[0]["point"], marks[0]["until"], marks[0]["facts"])
    ] * 2
    assert sorted(path.name for path in target.iterdir()) == ["evidence", MARKER, "logs", "spool"]
    assert samples.everything(target / "spool").keys() and not list(target.rglob("*.engine"))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    with standbyfile.locked(tmp_path / "standby"):
        yield tmp_path / "standby"


@pytest.mark.parametrize("kind", KINDS)
def test_it_follows_and_is_promoted(kind: str, tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path, kind, 9)
    kept = begun(site, 3)
    standby = standby_of(site, target)
    standby.catch_up()
    assert standby.moment is not None
    assert (standby.moment.standing.applied, standby.moment.lag, standby.moment.problem) == (3, 57, None)
    assert not (target / "spool").exists(), "nothing that a mail server could start on"
    arrive(kept, 2)
    looks = iter([True, True, False])
    moments = list(standby.follow(lambda _seconds: arrive(kept) or next(looks), 1.0))
    assert [moment.standing.applied for moment in moments] == [5, 6, 7]
    standby.close()
    standby = standby_of(site, target)
    arrive(kept, len(kept))
    standby.catch_up()
    standby.close()
    promoted(site, target)
    same_as_restored(site, target, tmp_path / "again")
    from kumodr.spool.copyrule import why_not_copy

    assert why_not_copy(target / "spool" / "meta", target / "spool" / "data", "auto") is None


def test_a_new_epoch_is_restored_beside_and_swapped(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path, "rocksdb", 4)
    begun(site, 4)
    standby = standby_of(site, target)
    standby.catch_up()
    later = tmp_path / "later"
    samples.write_spool(later / "spool", "rocksdb", *site.states[4])
    (later / "logs").mkdir()
    (later / "logs" / "open").write_bytes(site.logs[4])
    base(site.made, later, StreamJoin(2, 1, 2), site.stream.taken(20))
    second = Stream(site.made, epoch=2, begun=site.stream.taken(20))
    key = samples.key(number=700)
    second.add({key: samples.meta()}, {key: b"one"})
    list(standby.follow(lambda _seconds: False, 1.0))
    assert standby.standing is not None
    assert (standby.standing.base, standby.standing.epoch) == ("primary-2", 0), "it is not whole yet: the base alone"
    second.add({}, {key: b"two"})
    list(standby.follow(lambda _seconds: False, 1.0))
    assert (standby.standing.epoch, standby.standing.applied) == (2, 2)
    assert [path.name for path in (target / ".standby").glob("state-*")] == [standby.standing.state]
    second.add({}, {key: b"three"})
    assert standby.apply_next()
    standby.close()
    promoted(site, target)
    assert content(target / "spool")[1][key] == b"three"


def test_a_break_is_named_and_a_new_base_ends_it(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path, "rocksdb", 8)
    kept = begun(site, 3)
    standby = standby_of(site, target)
    standby.catch_up()
    (broken, good), *_ = kept
    arrive(kept, len(kept))
    broken.write_bytes(good[:-1])
    assert not standby.apply_next()
    assert standby.problem is not None
    assert broken.name in standby.problem
    broken.unlink()
    assert not standby.apply_next()
    assert standby.problem is not None
    assert "missing" in standby.problem
    site.stream.roll(4, 6)
    assert standby.apply_next(), "a roll-up bridges it"
    assert standby.problem is None
    assert standby.standing is not None
    assert (standby.standing.applied, standby.standing.rollups) == (8, 1)
    damaged = tmp_path / "vault" / site.stream.add({}).name
    damaged.write_bytes(b"")
    assert not standby.apply_next()
    later = tmp_path / "later"
    samples.write_spool(later / "spool", "rocksdb", *site.states[8])
    (later / "logs").mkdir()
    base(site.made, later, StreamJoin(1, 10, 10), site.stream.taken(10))
    site.stream.add({samples.key(number=800): samples.meta()})
    standby.look()
    assert (standby.standing.base, standby.standing.applied, standby.problem) == ("primary-2", 10, None)
    standby.close()
    promoted(site, target)
    assert content(target / "spool")[0] == site.states[8][0] | {samples.key(number=800): samples.meta()}


def test_a_moment_in_parts_is_applied_at_once(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path, "rocksdb", 1)
    begun(site, 1)
    standby = standby_of(site, target)
    standby.catch_up()
    one = samples.key(number=900)
    site.stream.add({one: samples.meta()}, partial=True)
    assert not standby.apply_next()
    site.stream.add({}, {one: b"body"})
    assert standby.apply_next()
    assert standby.standing is not None
    assert standby.standing.applied == 3
    standby.close()


def test_without_the_vault_what_is_there_can_be_promoted(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path, "rocksdb", 3)
    begun(site, 3)
    standby = standby_of(site, target)
    standby.catch_up()

    class Gone:
        def __getattr__(self, name: str) -> Any:
            raise errors.StoreUnavailable("the vault is gone")

    standby.close()
    cut_off = standby_of(site, target, store=Gone())
    moments = list(cut_off.follow(lambda _seconds: False, 1.0))
    assert moments[0].problem is not None
    assert "gone" in moments[0].problem
    cut_off.close()
    stood = standbyfile.load(target)
    assert stood is not None
    standbyfile.save(target, replace(stood, dirty=True))
    with pytest.raises(errors.StandbyDamaged, match="applied in part"):
        promoted(site, target)
    standbyfile.save(target, stood)
    promoted(site, target)
    same_as_restored(site, target, tmp_path / "again")


STEPS = {"rocksdb": 11, "localdisk": 23}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_wherever_it_fails(kind: str, tmp_path: Path) -> None:
    """Killed at each of its steps, following and promoting, it goes on and gives the same."""
    site = Site(tmp_path, kind, 6)
    base(site.made, site.folder, StreamJoin(1, 1, 2))
    parts = site.stream.contents[4:]
    del site.stream.contents[4:], site.stream.hashes[5:]
    for name in site.stream.names[4:]:
        (tmp_path / "vault" / name).unlink()
    site.stream.number, site.stream.hash = 4, site.stream.hashes[4]
    program = Path(__file__).with_name("standby_child.py")
    (tmp_path / "key.txt").write_text(site.made.identity.secret)
    words = [sys.executable, str(program), str(tmp_path / "vault"), str(tmp_path / "key.txt")]
    begun_at = tmp_path / "begun"
    assert subprocess.run([*words, str(begun_at), "0", "follow"], capture_output=True).returncode == 0
    for each in parts:
        site.stream.add(each.meta, each.data, each.logs)
    for step in range(1, 1000, STEPS[kind]):
        target = tmp_path / f"standby-{step}"
        shutil.copytree(begun_at, target)
        died = subprocess.run([*words, str(target), str(step), "promote"], capture_output=True, text=True)
        assert died.returncode in (0, -signal.SIGKILL), died.stderr
        if died.returncode:
            done = subprocess.run([*words, str(target), "0", "promote"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        same_as_restored(site, target, tmp_path / f"again-{step}")
        if died.returncode == 0:
            return
    pytest.fail("it has more steps than were tried")


def test_killed_at_any_time_it_goes_on(tmp_path: Path) -> None:
    site = Site(tmp_path, "rocksdb", 30)
    kept = begun(site, 5)
    target = tmp_path / "standby"
    (tmp_path / "key.txt").write_text(site.made.identity.secret)
    command = [sys.executable, "-m", "kumodr", "standby", "--to", str(target), "--every", "20ms", "--json"]
    command += ["--vault", str(tmp_path / "vault"), "--identity", str(tmp_path / "key.txt")]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "xdg")}
    chance = random.Random(3)
    killed = 0
    while kept:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 9)):
            assert process.stdout.readline()
            if kept:
                arrive(kept)
        process.send_signal(signal.SIGKILL if kept else signal.SIGTERM)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2
    assert process.returncode == errors.INTERRUPTED
    done = subprocess.run([*command, "--promote"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode in (errors.DONE, errors.IMPERFECT), done.stdout + done.stderr
    assert json.loads(done.stdout)["stream"]["last"] == 30
    same_as_restored(site, target, tmp_path / "again")
    again = subprocess.run([*command, "--promote"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert again.returncode == errors.UNSAFE


def test_two_in_one_directory_are_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(errors.AnotherRun), standbyfile.locked(target):
        pass


def test_a_log_piece_can_be_repeated(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path, "rocksdb", 1)
    begun(site, 1)
    standby = standby_of(site, target)
    standby.catch_up()
    site.stream.add(logs=(LogPiece("1-logs/open", 5000, b"late", 0o640, 0),))
    assert standby.apply_next()
    standby.close()
    stood = standbyfile.load(target)
    assert stood is not None
    assert "lacks the bytes" in stood.notes[0]
