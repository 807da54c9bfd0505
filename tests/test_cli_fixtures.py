"""The whole path by the command line on every captured spool: stored, proved, brought back, listed, byte for byte."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPOOLS = (
    "rocksdb-clean-stop",
    "rocksdb-killed",
    "rocksdb-killed-many-flushes",
    "rocksdb-killed-long-segment",
    "rocksdb-expired",
    "localdisk-clean-stop",
    "localdisk-killed",
)

PLAN = """version: 1
site: primary
vault: {{url: {vault}}}
state: state
components:
  spool: {{meta: spool/meta, data: spool/data}}
  logs: {{directories: [logs]}}
  config: {{paths: [nodeid], environment: [KUMO_TEST*]}}
"""


def kumodr(folder: Path, *words: str, expect: int = 0) -> dict:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder.parent / "cache"), "KUMO_TEST_SECRET": "hush-hush"}
    done = subprocess.run(
        [sys.executable, "-m", "kumodr", *words, "--json"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return json.loads(done.stdout)


def shape(folder: Path) -> list[tuple[str, int, int, int]]:
    return sorted(
        (str(path.relative_to(folder)), status.st_size, status.st_mtime_ns, status.st_ino)
        for path in folder.rglob("*")
        for status in [path.lstat()]
    )


@pytest.mark.parametrize("name", SPOOLS)
def test_a_captured_spool_comes_back_as_it_was(name: str, unpacked, fixtures_directory: Path, tmp_path: Path) -> None:
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    site = unpacked(name)
    before = shape(site)
    (tmp_path / "vaults").mkdir()
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys" / "identity.txt"
    plan = tmp_path / "plan"
    plan.mkdir()
    text = PLAN.format(vault=tmp_path / "vaults" / "one").replace("spool/", f"{site}/spool/")
    text = text.replace("[logs]", f"[{site}/logs]").replace("[nodeid]", f"[{site}/nodeid]")
    (plan / "kumodr.yaml").write_text(text)

    kumodr(plan, "vault", "init", "--identity-out", str(key))
    assert key.stat().st_mode & 0o777 == 0o600
    point = kumodr(plan, "backup")["point"]
    assert shape(site) == before
    again = kumodr(plan, "backup")
    assert again["components"]["spool"]["facts"] == kumodr(plan, "points")["points"][1]["components"]["spool"]["facts"]
    for level in ((), ("--deep", "--identity", str(key)), ("--restore", "--identity", str(key))):
        assert kumodr(plan, "verify", point, *level)["good"]

    empty = tmp_path / "empty-machine"
    empty.mkdir()
    restored = kumodr(
        empty, "restore", point, "--vault", str(tmp_path / "vaults" / "one"), "--identity", str(key), "--to", "back"
    )
    back = empty / "back"
    facts = next(each for each in restored["components"] if each["component"] == "spool")["facts"]
    assert facts["messages"] == len(expected["meta_ids"])
    listed = kumodr(empty, "spool", "list", "--spool", str(back / "spool"))
    assert {each["id"] for each in listed["messages"]} == set(expected["meta_ids"])
    digests = {}
    for each in kumodr(empty, "spool", "list", "--spool", str(back / "spool"))["messages"][:5]:
        raw = subprocess.run(
            [sys.executable, "-m", "kumodr", "spool", "show", each["id"], "--raw", "--spool", str(back / "spool")],
            capture_output=True,
            check=True,
        )
        digests[each["id"]] = hashlib.sha256(raw.stdout).hexdigest()
    assert digests == {each: expected["data_sha256"][each] for each in digests}
    kumodr(empty, "spool", "export", "--format", "eml", "--to", str(empty / "eml"), "--spool", str(back / "spool"))
    exported = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in (empty / "eml").glob("*.eml")}
    assert exported == expected["data_sha256"]

    for source in (site / "logs").iterdir():
        assert (back / "logs" / "1-logs" / source.name).read_bytes() == source.read_bytes()
    assert "KUMO_TEST_SECRET=hush-hush" in (back / "config" / "environment").read_text()
    assert (back / "config" / "files" / str(site / "nodeid").lstrip("/")).read_bytes() == (site / "nodeid").read_bytes()
    clear = b"".join(path.read_bytes() for path in (tmp_path / "vaults" / "one" / "points").rglob("*.json"))
    assert b"hush" not in clear
    assert b"@" not in clear
    assert b"nodeid" not in clear
