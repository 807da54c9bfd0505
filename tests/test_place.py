"""`kumodr place`: what was restored goes where the site had it, whole, with its owners, over nothing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kumodr import errors
from kumodr.components.places import FILE, Place, read_places
from kumodr.recover import putback
from kumodr.recover.putback import STAGE, fill, missing_in

Say = Callable[..., Any]


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """Run kumodr with --json in the site's folder; return its document."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "c"), "XDG_STATE_HOME": str(tmp_path / "s")}

    def run(*words: str, good: tuple[int, ...] = (0, 3)) -> Any:
        line = [sys.executable, "-m", "kumodr", *words, "--json"]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode in good, done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


def facts(*roots: Path) -> dict[Path, tuple[int, int, int, bytes]]:
    """Return owner, group, mode and content of everything below."""
    found = [path for root in roots for path in (root, *root.rglob("*"))]
    status = {path: path.lstat() for path in found}
    return {
        path: (each.st_uid, each.st_gid, each.st_mode & 0o7777, path.read_bytes() if path.is_file() else b"")
        for path, each in status.items()
    }


def test_a_site_is_back_where_it_was(say: Say, tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    capture, site = unpacked("rocksdb-clean-stop"), tmp_path / "srv"
    shutil.copytree(capture / "spool", site / "spool" / "kumomta")
    shutil.copytree(capture / "logs", site / "logs")
    policy = site / "etc" / "policy"
    policy.mkdir(parents=True)
    (policy / "init.lua").write_text("-- policy\n")
    (policy / "link.lua").symlink_to("init.lua")
    (policy / "key.pem").write_text("secret\n")
    (policy / "key.pem").chmod(0o640)
    for path in (site / "spool" / "kumomta", site / "logs"):
        path.chmod(0o2770)
    for path in (policy / "key.pem", *(site / "spool" / "kumomta").rglob("*"), site / "spool" / "kumomta"):
        if os.geteuid() == 0:
            os.chown(path, 1234, 1235)
    for half in ("meta", "data"):
        (site / "spool" / "kumomta" / half / "LOG").unlink(missing_ok=True)
        (site / "spool" / "kumomta" / half / "LOCK").unlink(missing_ok=True)
    plan = {
        "version": 1,
        "site": "here",
        "vault": {"url": str(tmp_path / "vault")},
        "state": str(tmp_path / "state"),
        "components": {
            "spool": {"meta": str(site / "spool/kumomta/meta"), "data": str(site / "spool/kumomta/data")},
            "logs": {"directories": [str(site / "logs")]},
            "config": {"paths": [str(policy)]},
        },
    }
    (tmp_path / "kumodr.yaml").write_text(json.dumps(plan))
    (tmp_path / "key").mkdir()
    say("vault", "init", "--identity-out", str(tmp_path / "key" / "identity.txt"), good=(0,))
    say("backup", good=(0,))
    before = facts(site / "spool" / "kumomta", site / "logs", policy)
    spool = len(say("spool", "list", "--spool", str(site / "spool/kumomta"))["messages"])
    shutil.rmtree(site)

    back = tmp_path / "back"
    say("restore", "--to", str(back), "--identity", str(tmp_path / "key" / "identity.txt"))
    assert say("place", str(back), good=(5,))["error"] == "SpoolNotReconciled"
    say("spool", "reconcile", "--spool", str(back / "spool"), "--uncertain", "send", "--apply")
    planned = say("place", str(back))
    assert not planned["applied"] and not site.exists()
    assert {each["action"] for each in planned["config"]} == {"write", "nothing"}
    placed = say("place", str(back), "--apply", good=(0,))
    after = facts(site / "spool" / "kumomta", site / "logs", policy)
    unchanged = [path for path in before if "spool" not in path.parts or path.is_dir()]
    assert {path: after[path] for path in unchanged} == {path: before[path] for path in unchanged}
    assert {each[:2] for path, each in after.items() if "spool" in path.parts} == {
        before[site / "spool" / "kumomta"][:2]
    }
    assert (policy / "link.lua").is_symlink()
    left = say("spool", "list", "--spool", str(back / "spool"))["messages"]
    assert placed["vetted"]["messages"] == len(left) <= spool
    again = say("place", str(back), "--apply", good=(0,))
    assert {each["action"] for each in (*again["config"], *again["folders"])} == {"nothing"}

    (policy / "init.lua").write_text("-- another\n")
    refused = say("place", str(back), "--apply", good=(5,))
    assert refused["error"] == "TargetNotEmpty" and "init.lua" in refused["message"]
    say("place", str(back), "--component", "spool", "--apply", good=(0,))
    (site / "spool" / "kumomta" / "meta" / "LOG").write_text("started\n")
    assert say("place", str(back), "--component", "spool", "--apply", good=(5,))["error"] == "TargetNotEmpty"
    assert (policy / "init.lua").read_text() == "-- another\n"


class Killed(BaseException):
    """Stands for kill -9: nothing of the code that is told of it may tidy up."""


@pytest.mark.parametrize("root", [True, False])
def test_killed_anywhere_it_is_whole_or_not_there(tmp_path: Path, root: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "restored"
    for name in ("000004.sst", "CURRENT", "MANIFEST-000005", "deep/er/file"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name * 1000)
    target = tmp_path / "volumes" / "v" / "_data" / ("" if root else "meta")
    place = Place("spool", "spool/meta", str(target), os.geteuid(), os.getegid(), 0o2750)
    left = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*words: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return call(*words, **options)

        return counting

    for name in ("_copy", "_own_file", "_remove_hollow", "sync_filesystem"):
        monkeypatch.setattr(putback, name, counted(getattr(putback, name)))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    for steps in range(200):
        shutil.rmtree(tmp_path / "volumes", ignore_errors=True)
        (target / "deep").mkdir(parents=True)
        left, ended = steps, True
        try:
            fill(source, target, place)
        except Killed:
            ended = False
        there = {path for path in target.rglob("*") if path.is_file() and STAGE not in path.parts}
        assert all(path.read_text() == (source / path.relative_to(target)).read_text() for path in there)
        if target / "CURRENT" in there:
            assert len(there) == 4
        left = 1000
        fill(source, target, place)
        assert missing_in(source, target) == []
        assert not [path for path in (tmp_path / "volumes").rglob("*") if STAGE in path.name]
        assert target.stat().st_mode & 0o7777 == 0o2750
        if ended:
            break
    else:
        raise AssertionError("it never ended by itself")
    assert steps > 8


@pytest.mark.parametrize(
    "folder",
    [
        {"path": "/srv/../etc"},
        {"path": "relative"},
        {"path": "/"},
        {"source": "../evidence"},
        {"source": "/etc"},
        {"mode": "0777"},
        {"uid": -1},
        {"more": 1},
    ],
)
def test_places_of_a_stranger_are_refused(tmp_path: Path, folder: dict[str, object]) -> None:
    good = {"component": "redis", "source": "redis", "path": "/srv/redis", "uid": 1, "gid": 1, "mode": 0o755}
    runtime = {"kind": "none"}
    (tmp_path / FILE).write_text(json.dumps({"runtime": runtime, "folders": [good], "state": "/s"}))
    assert read_places(tmp_path).folders[0].volume is None
    (tmp_path / FILE).write_text(json.dumps({"runtime": runtime, "folders": [good | folder], "state": "/s"}))
    with pytest.raises(errors.ComponentDamaged):
        read_places(tmp_path)


def test_the_runtime_of_a_sidecars_site_is_that_of_the_plan_it_was_made_from(tmp_path: Path) -> None:
    places = {"runtime": {"kind": "none"}, "folders": [], "state": "/opt/mail/kumodr-state"}
    (tmp_path / FILE).write_text(json.dumps(places))
    stored = {
        "kumodr-sidecar/kumodr.yaml": {"kind": "none"},
        "kumodr.yaml": {"kind": "compose", "directory": ".", "kumod": "kumod"},
    }
    for name, runtime in stored.items():
        file = tmp_path / "files" / "opt" / "mail" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        plan = {"version": 1, "site": "s", "vault": {"url": "/v"}, "state": "/s", "components": {}, "runtime": runtime}
        file.write_text(json.dumps(plan))
    found = read_places(tmp_path).runtime
    assert (found.kind, found.directory) == ("compose", "/opt/mail")


def test_a_place_in_a_volume_is_known_by_the_volumes_name() -> None:
    assert Place("spool", None, "/var/lib/docker/volumes/mail_spool/_data/meta").volume == ("mail_spool", "meta")
    assert Place("redis", None, "/mnt/docker/volumes/r/_data").volume == ("r", "")
    assert Place("redis", None, "/srv/volumes/r").volume is None
