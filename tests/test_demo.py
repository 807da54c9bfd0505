"""The demo keeps its promises, and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["RocksDB", "LocalDisk"])
def test_every_message_is_accounted_for(kind: str, tmp_path: Path) -> None:
    words = ["--json", "--kind", kind, "--rate", "80", "--seconds", "5", "--keep", str(tmp_path / "demo")]
    if os.environ.get("KUMODR_TEST_KUMOD"):
        words += ["--kumod", os.environ["KUMODR_TEST_KUMOD"]]
    done = subprocess.run([sys.executable, "-m", "kumodr.lab.demo", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["promises_broken"] == []
    assert result["recovered"] > 0
    assert result["accepted"] > 200
    assert result["sent_twice"] == []
    assert result["lost_although_protected"] == []
    assert result["delivered_before"] + result["delivered_after"] + len(result["lost"]) == result["accepted"]
    assert len(result["lost"]) <= 80 * (result["point_age"] + 1)
    assert 0 < result["point_age"] < 5
    assert result["time_to_accept"] < result["objectives"]["critical_services"]
    assert all(len(each) == 32 for each in result["lost"])
    mine = str(tmp_path)
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if mine.encode() in _read(path)]
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
