"""By the command line, with bad input: each end has its exit code, one sentence, and nothing lost or half-written."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from captured_world import World
from disks import mounted
from servers import wait_for


@pytest.fixture
def world(unpacked, tmp_path: Path) -> World:
    made = World(tmp_path, unpacked("rocksdb-killed-many-flushes"))
    made.run("vault", "init", "--identity-out", str(made.key))
    return made


def objects(world: World) -> list[Path]:
    return sorted((world.vault / "objects").rglob("*"), key=lambda path: path.stat().st_size)


def test_the_wrong_key_and_no_key(world: World) -> None:
    world.run("backup")
    other = world.folder / "keys" / "other.txt"
    done = subprocess.run(
        [sys.executable, "-m", "kumodr", "vault", "init", "--url", str(world.folder / "vaults" / "two"),
         "--identity-out", str(other)], capture_output=True, cwd=world.folder / "work", env=world.environment
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = world.run("restore", "--to", str(world.folder / "back"), "--identity", str(other), expect=6)
    assert "not sealed to this identity" in text
    assert "no identity is given" in world.run("restore", "--to", str(world.folder / "back"), expect=4)
    assert "--identity FILE" in world.run("verify", "--deep", expect=4)
    assert not (world.folder / "back").exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "swap"])
def test_a_damaged_object_is_named_and_an_older_point_still_restores(world: World, damage: str) -> None:
    world.run("backup")
    (world.site / "nodeid").write_text("another node\n")
    world.run("backup")
    first = json.loads((world.vault / "points/primary/00000001.json").read_text().rpartition("\n{")[0])
    named = {each["object"] for section in first["sections"] for each in section["objects"] + section["index"]}
    fresh = [path for path in objects(world) if path.is_file() and str(path.relative_to(world.vault)) not in named]
    victim = max(fresh, key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    if damage == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 4
        victim.write_bytes(data)
    elif damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(min(fresh, key=lambda path: path.stat().st_size).read_bytes())
    text = world.restore("back", expect=1)
    assert str(victim.relative_to(world.vault)) in text
    assert not (world.folder / "back" / "kumodr-restored.json").exists()
    assert "NOT good" in world.run("verify", "--deep", "--identity", str(world.key), expect=1)
    world.restore("older", "primary-1")
    assert (world.folder / "older" / "kumodr-restored.json").exists()


def test_a_forged_manifest_is_refused_and_told(world: World) -> None:
    for _number in range(2):
        world.run("backup")
    path = world.vault / "points" / "primary" / "00000002.json"
    path.write_text(path.read_text().replace('"messages": 109', '"messages": 1'))
    text = world.run("points", expect=3)
    assert "PROBLEM" in text
    assert "00000002.json is damaged or was changed" in text
    assert "00000002.json" in world.restore("back", expect=3)
    world.restore("forged", "primary-2", expect=4)


def test_an_unknown_format_is_refused(world: World) -> None:
    world.run("backup")
    marker = world.vault / "kumodr-vault.json"
    marker.write_text(marker.read_text().replace('"format": 1', '"format": 7'))
    assert "newer one" in world.restore("back", expect=1)


def test_nothing_is_restored_over_something_or_into_the_live_site(world: World) -> None:
    world.run("backup")
    (world.folder / "full").mkdir()
    (world.folder / "full" / "file").write_text("x")
    before = {path: path.lstat().st_mtime_ns for path in world.site.rglob("*")}
    assert "never restores over something" in world.restore("full", expect=5)
    for live in (world.site / "spool" / "data", world.site / "spool" / "data" / "new", world.site):
        words = ("restore", "--to", str(live), "--identity", str(world.key))
        world.run(*words, expect=5)
    os.symlink(world.site / "spool" / "data", world.folder / "link")
    world.restore("link", expect=5)
    assert {path: path.lstat().st_mtime_ns for path in world.site.rglob("*")} == before
    assert os.listdir(world.folder / "full") == ["file"]


def test_there_is_no_vault_no_point_no_component(world: World) -> None:
    assert "kumodr backup" in world.run("points", expect=4)
    assert "holds no recovery point" in world.restore("back", expect=4)
    world.run("backup", "config")
    assert "no recovery point primary-9" in world.restore("back", "primary-9", expect=4)
    assert "component spool" in world.restore("back", "--component", "spool", expect=4)
    assert "no component 'redis'" in world.run("backup", "redis", expect=2)
    assert "no recovery point of" in world.restore("back", "--at", "2020-01-01 00:00:00", expect=4)
    assert "is no time" in world.restore("back", "--at", "yesterday", expect=2)
    shutil.rmtree(world.vault)
    assert "no vault" in world.run("backup", expect=4)
    world.run("vault", "init", "--identity-out", str(world.folder / "keys" / "new.txt"))
    assert "already" in world.run("vault", "init", "--identity-out", str(world.folder / "keys" / "x.txt"), expect=5)


def test_the_key_is_not_kept_with_the_vault(world: World) -> None:
    for place in (world.vault / "key.txt", world.vault.parent / "key.txt"):
        shutil.rmtree(world.vault, ignore_errors=True)
        text = world.run("vault", "init", "--identity-out", str(place), expect=5)
        assert "in another place" in text
        assert not place.exists()
        assert not world.vault.exists()


def test_two_backups_at_once(world: World) -> None:
    import fcntl

    (world.folder / "state").mkdir(exist_ok=True)
    with open(world.folder / "state" / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another backup" in world.run("backup", expect=7)
    world.run("backup")


def test_a_component_that_fails_does_not_cost_the_others_theirs(world: World) -> None:
    (world.site / "nodeid").unlink()
    text = world.run("backup", expect=3)
    assert "config" in text
    assert "NOT STORED" in text
    assert [each["failures"] for each in world.points()] == [{"config": world.points()[0]["failures"]["config"]}]
    world.restore("back", expect=0)
    assert not (world.folder / "back" / "config").exists()
    shutil.rmtree(world.site / "spool" / "data")
    world.run("backup", "spool", expect=4)
    assert len(world.points()) == 1


def test_a_spool_that_is_replaced_while_it_is_read_is_never_mixed(world: World, unpacked) -> None:
    """The halves of two servers are swapped again and again; a half is never a mixture of both."""
    other = unpacked("rocksdb-killed")
    one, two = world.site / "spool", other / "spool"
    chance = random.Random(5)
    stop = world.folder / "stop"
    program = (
        "import os, sys, random, time; one, two, stop = sys.argv[1:]; chance = random.Random(5)\n"
        "while not os.path.exists(stop):\n"
        "  for half in ('meta', 'data'):\n"
        "    os.rename(f'{one}/{half}', f'{one}/x'); os.rename(f'{two}/{half}', f'{one}/{half}')\n"
        "    os.rename(f'{one}/x', f'{two}/{half}'); time.sleep(chance.random() / 200)\n"
    )
    swapping = subprocess.Popen([sys.executable, "-c", program, str(one), str(two), str(stop)])
    counts: set[tuple[int, int]] = set()
    try:
        for _number in range(12):
            time.sleep(chance.random() / 50)
            done = subprocess.run(
                [*world.command("backup", "spool"), "--json"], env=world.environment, capture_output=True, text=True
            )
            document = json.loads(done.stdout)
            if done.returncode == 0:
                facts = document["components"]["spool"]["facts"]
                counts.add((facts["messages"], facts["bodies"]))
            else:
                assert done.returncode in (1, 4), done.stdout
                assert document["error"] in ("SpoolChanging", "SpoolDamaged", "SpoolMissing", "SpoolUnreadable")
    finally:
        stop.touch()
        swapping.wait(20)
    assert all(each in ((109, 109), (135, 135), (109, 135), (135, 109)) for each in counts), counts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    with mounted(tmp_path / "disk", "2m") as folder:
        yield folder


def test_a_full_vault_and_a_read_only_one(world: World, small_disk: Path) -> None:
    world.plan.write_text(world.plan.read_text().replace(str(world.vault), str(small_disk / "vault")))
    world.run("vault", "init", "--identity-out", str(world.folder / "keys" / "disk.txt"))
    space = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(space.f_bavail * space.f_frsize - 50_000))
    assert "is full" in world.run("backup", expect=1)
    assert world.points() == []
    (small_disk / "filler").unlink()
    world.run("backup")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "refuses" in world.run("backup", expect=1)
    assert len(world.points()) == 1
    text = world.run("verify", expect=3)
    assert "could not be recorded" in text
    shutil.copytree(small_disk / "vault", world.folder / "copy")
    target = ("--identity", str(world.folder / "keys" / "disk.txt"), "--to", str(small_disk / "back"))
    world.run("restore", *target, expect=2)


def test_a_restore_to_a_full_disk_leaves_nothing(world: World, small_disk: Path) -> None:
    world.run("backup")
    (small_disk / "filler").write_bytes(bytes(1_900_000))
    words = ("restore", "--to", str(small_disk / "back"), "--identity", str(world.key))
    assert "is full" in world.run(*words, expect=1)
    assert sorted(os.listdir(small_disk)) == ["filler"]


def catches_or_ended(process: "subprocess.Popen[str]") -> bool:
    """Whether the interpreter is past its own start, where an interrupt ends in its traceback and not in ours."""
    found = re.findall(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{process.pid}/status").read_text())
    return process.poll() is not None or bool(int(found[0], 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whenever_a_backup_is_ended_points_are_whole_and_the_next_one_succeeds(world: World, number: int) -> None:
    chance = random.Random(number)
    scratch = world.folder / "scratch"
    scratch.mkdir()
    environment = {**world.environment, "TMPDIR": str(scratch)}
    ends: set[int] = set()
    for attempt in range(12):
        (world.site / "nodeid").write_text(f"node {attempt}\n")
        process = subprocess.Popen(
            world.command("backup"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for("the command to be in charge of its signals", lambda process=process: catches_or_ended(process))
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(number)
        _out, text = process.communicate(timeout=30)
        ends.add(process.returncode)
        assert process.returncode in (0, 130, -number), text
        assert "Traceback" not in text
    assert ends - {0}, "every backup was quicker than its end: this test says nothing"
    world.run("backup")
    for point in world.points():
        world.run("verify", point["point"], "--deep", "--identity", str(world.key))
    assert list((world.vault / "tmp").iterdir()) == [] or number == signal.SIGKILL
    wait_for("scratch views to go", lambda: not list(scratch.glob("kumodr-view-*")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whenever_a_restore_is_ended_it_is_marked_only_when_whole(world: World, number: int) -> None:
    world.run("backup")
    chance = random.Random(number)
    ends: set[int] = set()
    for attempt in range(10):
        target = world.folder / f"back-{attempt}"
        process = subprocess.Popen(
            world.command("restore", "--to", str(target), "--identity", str(world.key)),
            env=world.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(chance.uniform(0.05, 0.7))
        process.send_signal(number)
        process.communicate(timeout=30)
        ends.add(process.returncode)
        if (target / "kumodr-restored.json").exists():
            assert sorted(each for each in os.listdir(target) if not each.startswith(".")) == [
                "config", "evidence", "kumodr-restored.json", "ledger", "logs", "spool",
            ]  # fmt: skip
            assert len(list((target / "spool" / "data").glob("*.sst"))) == 5
        else:
            assert process.returncode != 0
    assert ends - {0}, "every restore was quicker than its end: this test says nothing"
    world.restore("whole")


def test_no_secret_is_in_the_process_list_or_a_log(world: World) -> None:
    process = subprocess.Popen(
        world.command("verify", "--restore", "--identity", str(world.key)),
        env={**world.environment, "KUMODR_IDENTITY": world.key.read_text()},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    seen = b""
    while process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen += path.read_bytes()
            except OSError:
                continue
    process.communicate()
    assert b"AGE-SECRET-KEY" not in seen
    assert b"hush-hush" not in seen
    for path in (*world.folder.glob("state/*"), *world.folder.glob("xdg/**/*")):
        if path.is_file():
            assert b"AGE-SECRET-KEY" not in path.read_bytes()
            assert b"hush-hush" not in path.read_bytes()
    assert world.key.stat().st_mode & 0o777 == 0o600
    assert all(path.stat().st_mode & 0o077 == 0 for path in world.folder.glob("state/*"))


def test_reordered_manifests_are_told_and_not_used(world: World) -> None:
    for _number in range(2):
        world.run("backup")
    one, two = (world.vault / "points" / "primary" / f"0000000{number}.json" for number in (1, 2))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    assert "PROBLEM" in world.run("points", expect=3)
    world.run("verify", expect=4)
    world.restore("back", expect=4)
    assert not (world.folder / "back").exists()


@pytest.mark.parametrize("verb", ["backup", "verify", "restore"])
def test_a_vault_that_vanishes_in_the_middle_is_named_and_nothing_is_half(world: World, verb: str) -> None:
    """The vault's disk goes away at a random moment, and comes back."""
    away = world.folder / "away"
    chance = random.Random(verb)
    world.run("backup")
    (world.site / "extra").mkdir()
    world.plan.write_text(world.plan.read_text().replace(f"{world.site}/nodeid", f"{world.site}/extra"))
    gone = 0
    for attempt in range(8):
        (world.site / "extra" / "file").write_bytes(random.Random(attempt).randbytes(30_000_000))
        if verb != "backup":
            world.run("backup")
        words = {
            "backup": ("backup",),
            "verify": ("verify", "--restore", "--identity", str(world.key)),
            "restore": ("restore", "--to", str(world.folder / f"back-{attempt}"), "--identity", str(world.key)),
        }[verb]
        before = len(world.points())
        process = subprocess.Popen(
            world.command(*words), env=world.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(chance.uniform(0.1, 0.4))
        os.rename(world.vault, away)
        _out, text = process.communicate(timeout=60)
        os.rename(away, world.vault)
        assert "Traceback" not in text
        if process.returncode:
            gone += 1
            assert process.returncode in (1, 3, 4), text
            assert str(world.vault) in text
            assert not (world.folder / f"back-{attempt}" / "kumodr-restored.json").exists()
            assert not away.exists()
            assert len(world.points()) == before
        shutil.rmtree(world.folder / f"back-{attempt}", ignore_errors=True)
    assert gone, "the vault was never missed: this test says nothing"
    world.run("backup")
    world.run("verify", "--deep", "--identity", str(world.key))


def test_a_clock_that_goes_back_changes_no_order_and_no_sentence_is_nonsense(world: World) -> None:
    ahead = (
        "import datetime, sys; from kumodr import clock; real = clock.system_clock\n"
        "clock.system_clock = lambda: real() + datetime.timedelta(hours=2)\n"
        "from kumodr.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", ahead, "backup", "--plan", str(world.plan)]
    subprocess.run(words, env=world.environment, check=True, capture_output=True)
    (world.site / "nodeid").write_text("after the clock went back\n")
    world.run("backup")
    points = world.points()
    assert [each["point"] for each in points] == ["primary-2", "primary-1"]
    assert points[0]["taken"] < points[1]["taken"]
    text = world.run("points", expect=0) + world.run("status", expect=3)
    assert "-" not in "".join(re.findall(r"(\S+) (?:s|min|h|days?) old", text)), text
    assert "primary-2" in world.restore("back")
    (found,) = (world.folder / "back" / "config").rglob("nodeid")
    assert found.read_text() == "after the clock went back\n"


def test_what_this_user_may_not_read_is_named(world: World) -> None:
    bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"] if os.getuid() == 0 else []

    def backup(expect: int) -> str:
        done = subprocess.run([*bound, *world.command("backup")], env=world.environment, capture_output=True, text=True)
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    (world.site / "nodeid").chmod(0)
    text = backup(3)
    assert "config" in text
    assert f"{world.site}/nodeid" in text
    (world.site / "nodeid").chmod(0o600)
    (world.site / "spool" / "data").chmod(0)
    try:
        text = backup(3)
        assert "spool" in text
        assert f"{world.site}/spool/data" in text
    finally:
        (world.site / "spool" / "data").chmod(0o700)
    backup(0)
