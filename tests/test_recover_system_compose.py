"""A compose project whose containers, volumes and files are all gone, brought back by `kumodr recover system`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compose_site import NO_DOCKER
from servers import wait_for

from kumodr.lab.account import account, sent, taken
from kumodr.lab.compose.project import read_environment

_NOT_ROOT = "Docker's volumes are seen by root only" if os.geteuid() else None
pytestmark = pytest.mark.skipif((NO_DOCKER or _NOT_ROOT) is not None, reason=str(NO_DOCKER or _NOT_ROOT))
MESSAGES = 60


def kumodr(*words: str, cwd: Path, expect: tuple[int, ...] = (0,)) -> Any:
    command = [sys.executable, "-m", "kumodr", *words, "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    assert done.returncode in expect, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_compose_site_of_which_nothing_is_left_comes_back(tmp_path: Path) -> None:
    lab, host, key = tmp_path / "lab", tmp_path / "host", str(tmp_path / "key" / "identity.txt")
    for folder in (host, Path(key).parent):
        folder.mkdir()
    kumodr("lab", "up", str(lab), "--runtime", "compose", cwd=tmp_path)
    try:
        ports = read_environment(lab / "site")
        plan, vault = str(host / "kumodr.yaml"), str(tmp_path / "vaults" / "vault")
        kumodr("init", "--from", "compose", "--vault", vault, "--out", plan, cwd=lab / "site", expect=(0, 3))
        text = Path(plan).read_text().replace("# smtp: null", f'smtp: "127.0.0.1:{ports["KUMO_SMTP_PORT"]}" #')
        Path(plan).write_text(text + "\nrunbooks: {canary: canary@example.com}\n")
        kumodr("vault", "init", "--identity-out", key, cwd=host)
        kumodr("lab", "load", "--count", str(MESSAGES), "--rate", "0", "--deferred", "1", ".", cwd=lab)
        kumodr("backup", cwd=host)
        kumodr("lab", "break", "wipe", ".", cwd=lab)
        assert not (lab / "site").exists()
        done = kumodr("recover", "system", "--identity", key, "--yes", cwd=host, expect=(0, 3))
        facts = {name: value for entry in done["entries"] for name, value in entry["facts"].items()}
        assert facts["expected"] == facts["loaded"] == MESSAGES
        assert facts["delivered"]
        (lab / "world" / "control.json").write_text('{"mode": "accept"}')
        first = {each.load_id for each in sent(lab / "world")}
        wait_for("every message", lambda: {each.load_id for each in taken(lab / "world")} >= first, 60)
        sums = account(sent(lab / "world"), taken(lab / "world"))
        assert (sums.acknowledged, sums.missing, sums.duplicates) == (MESSAGES, (), ())
    finally:
        kumodr("lab", "down", "--remove", str(lab), cwd=tmp_path, expect=(0, 1, 4))
