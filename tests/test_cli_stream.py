"""The stream at the command line: points, restore --at, verify, vault info, spool diff."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import spool_samples as samples
from streamed_site import Site, flip
from streams import base, content

from kumodr import errors
from kumodr.cli.main import main
from kumodr.clock import system_clock
from kumodr.vault.facts import StreamJoin


class World(Site):
    """A site with a base and a stream whose last second was 10 minutes ago, and the commands."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, "rocksdb", 10, begun=system_clock() - timedelta(minutes=10, seconds=10))
        self.capsys = capsys
        self.root = folder
        self.key = folder / "key.txt"
        self.key.write_text(self.made.identity.secret)
        base(self.made, self.folder, StreamJoin(1, 1, 1), self.stream.begun)

    def run(self, *words: str, expect: int | None = 0, key: bool = True) -> str:
        """Run a command; `expect` None is for a spool of samples, which may be too old or too new to be perfect."""
        vault = ["--vault", str(self.root / "vault")]
        identity = ["--identity", str(self.key)] if key else []
        codes = (errors.DONE, errors.IMPERFECT) if expect is None else (expect,)
        assert main([*words, *vault, *identity]) in codes, self.capsys.readouterr()
        return self.capsys.readouterr().out

    def json(self, *words: str, expect: int | None = 0, key: bool = True) -> Any:
        return json.loads(self.run(*words, "--json", expect=expect, key=key))


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    return World(tmp_path, capsys)


def test_points_show_what_is_continuous_without_a_key(world: World) -> None:
    (found,) = world.json("points", key=False)["ranges"]
    assert (found["bases"], found["first"], found["last"], found["segments"]) == (["primary-1"], 1, 10, 10)
    assert 600 <= found["age"] < 660
    text = world.run("points", key=False)
    assert "continuous from" in text
    assert "10 segments" in text
    assert "10 min ago" in text
    world.stream.roll(1, 10)
    assert "10 segments and 1 roll-ups" in world.run("points", key=False)
    (world.root / "vault" / world.stream.names[6]).unlink()
    (world.root / "vault" / "stream" / "primary" / "00000001" / "rollup" / "0000000001-0000000010.seg").unlink()
    document = world.json("points", key=False, expect=errors.IMPERFECT)
    assert document["ranges"][0]["last"] == 6
    assert "0000000007.seg is missing" in document["problems"][0]


@pytest.mark.parametrize("words", [["--at=-10m"], ["--at", "-10m"], ["--at", "latest"], []])
def test_the_latest_state_is_restored(world: World, words: list[str]) -> None:
    document = world.json("restore", "--to", str(world.root / "back"), *words, expect=None)
    assert document["stream"]["last"] == 10
    assert content(world.root / "back" / "spool") == world.states[10]


def test_a_time_is_restored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at = world.stream.taken(4)
    text = f"{at.astimezone():%Y-%m-%d %H:%M:%S.%f}"
    planned = world.json("restore", "--to", str(world.root / "dry"), "--at", text, "--dry-run")
    assert not (world.root / "dry").exists()
    assert planned["stream"] == {
        "base": "primary-1", "epoch": 1, "first": 1, "last": 4, "taken": at.isoformat().replace("+00:00", "Z")
    }  # fmt: skip
    assert "numbers 1 to 4 of epoch 1" in world.run("restore", "--to", "dry", "--at", at.isoformat(), "--dry-run")
    for number, words in enumerate([text, f"{at:%Y-%m-%d %H:%M:%S.%f}Z", at.isoformat()]):
        world.json("restore", "--to", str(world.root / f"back-{number}"), "--at", words, expect=None)
        assert content(world.root / f"back-{number}" / "spool") == world.states[4]
    world.run("restore", "primary-1", "--to", str(world.root / "alone"), expect=None)
    assert content(world.root / "alone" / "spool") == world.states[0]
    world.run("restore", "--no-stream", "--to", str(world.root / "without"), expect=None)
    assert content(world.root / "without" / "spool") == world.states[0]
    for wrong in ("yesterday", "-5y", "--5m"):
        world.run("restore", "--to", str(world.root / "none"), f"--at={wrong}", expect=errors.USAGE)
    world.run("restore", "--to", str(world.root / "none"), "--at", "-2h", expect=errors.NOTHING)


def test_verify_looks_at_the_stream_too_and_says_so(world: World) -> None:
    world.stream.roll(1, 5)
    for level, key in ((["verify"], False), (["verify", "--deep"], True), (["verify", "--restore"], True)):
        document = world.json(*level, key=key)
        assert document["good"]
        assert (document["stream"]["last"], document["stream"]["objects"], document["stream"]["rollups"]) == (10, 11, 1)
        (point,) = world.json("points", key=False)["points"]
        assert point["verified"]["stream"]["last"] == 10
        assert point["verified"]["level"] == document["level"]
    assert world.json("verify", "--restore")["facts"]["stream"]["last"] == 10
    flip(world.root / "vault" / world.stream.names[7])
    assert world.json("verify", key=False)["good"], "without a key the content is not looked into"
    for level in ("--deep", "--restore"):
        document = world.json("verify", level, expect=errors.FAILED)
        assert world.stream.names[7] in document["problems"][0]
    flip(world.root / "vault" / world.stream.names[7], 30)
    assert world.stream.names[7] in world.json("verify", key=False, expect=errors.FAILED)["problems"][0]
    (world.root / "vault" / world.stream.names[7]).unlink()
    assert "missing" in world.run("verify", key=False, expect=errors.FAILED)
    assert world.json("verify", "primary-1", key=False, expect=errors.FAILED)["problems"]


def test_verify_takes_the_stream_of_the_base_where_the_newest_point_has_none(world: World) -> None:
    tree = world.root / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    world.made.now = world.stream.taken(5)
    world.made.backup_tree(tree)
    document = world.json("verify", "--deep")
    assert (document["point"], document["points"], document["stream"]["last"]) == (
        "primary-2", ["primary-2", "primary-1"], 10
    )  # fmt: skip
    found = world.json("restore", "--to", str(world.root / "back"), "--dry-run")
    assert {each["component"]: each["point"] for each in found["would_restore"]} == {
        "spool": "primary-1", "logs": "primary-1", "config": "primary-2"
    }  # fmt: skip
    assert found["stream"]["last"] == 10
    at = world.stream.taken(4).isoformat()
    found = world.json("restore", "--to", str(world.root / "back"), "--dry-run", "--at", at)
    assert {each["component"] for each in found["would_restore"]} == {"spool", "logs"}


def test_the_vault_says_what_the_stream_takes(world: World) -> None:
    sizes = [(world.root / "vault" / name).stat().st_size for name in world.stream.names]
    assert main(["vault", "info", "--url", str(world.root / "vault"), "--json"]) == 0
    document = json.loads(world.capsys.readouterr().out)
    assert (document["stream_objects"], document["stream_bytes"]) == (10, sum(sizes))
    assert document["unreferenced_objects"] == 0


def test_what_differs_between_two_states(world: World) -> None:
    before, after = world.states[2][0], world.states[7][0]
    a, b = (world.stream.taken(number).isoformat() for number in (2, 7))
    document = world.json("spool", "diff", a, b)
    assert document["only_a"] == [key.hex() for key in sorted(before.keys() - after.keys())]
    assert document["only_b"] == [key.hex() for key in sorted(after.keys() - before.keys())]
    both = sorted(before.keys() & after.keys())
    assert document["changed"] == [key.hex() for key in both if before[key] != after[key]]
    assert document["changed"]
    assert document["counts"]["same"] == len(both) - len(document["changed"])
    assert document["a"]["until"] == a.replace("+00:00", "Z")
    assert world.json("spool", "diff", "primary-1", str(world.folder / "spool"))["counts"] == {
        "only_a": 0, "only_b": 0, "changed": 0, "same": 40
    }  # fmt: skip
    text = world.run("spool", "diff", "primary-1", "latest")
    lines = text.splitlines()
    new = world.states[10][0].keys() - world.states[0][0].keys()
    assert lines[1].split()[-1] == str(len(new))
    assert f"… and {len(new) - 10} more" in text
    assert world.json("spool", "diff", "-1m", "latest")["counts"]["only_b"] == 0
    world.run("spool", "diff", "nothing", "latest", expect=errors.USAGE)
    world.run("spool", "diff", str(world.root), "latest", expect=errors.NOTHING)


def test_a_standby_by_the_command_line(world: World) -> None:
    target = str(world.root / "standby")
    document = world.json("standby", "--to", target, "--once")
    assert (document["applied"], document["base"], document["problem"]) == (10, "primary-1", None)
    assert 600 <= document["lag"] < 660
    key = samples.key(number=950)
    world.stream.add({key: samples.meta()}, {key: b"body"})
    assert "holds the state of" in world.run("standby", "--to", target, "--once")
    for words in (["--every", "soon"], ["--once", "--promote"]):
        world.run("standby", "--to", target, *words, expect=errors.USAGE)
    world.run("standby", "--to", str(world.folder), "--once", expect=errors.UNSAFE)
    world.run("standby", "--to", str(world.root / "none"), "--promote", expect=errors.NOTHING)
    document = world.json("standby", "--to", target, "--promote", expect=None)
    assert document["stream"]["last"] == 11
    assert document["problem"] is None
    assert content(Path(target) / "spool")[1] == world.states[10][1] | {key: b"body"}
    world.run("standby", "--to", target, expect=errors.UNSAFE)
