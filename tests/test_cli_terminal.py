"""On a terminal: colour where it is right, progress on standard error, and the result alone on standard output."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

PLAN = """version: 1
site: primary
vault: {{url: {0}/vault}}
state: {0}/state
components:
  config: {{paths: [{0}/etc]}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "etc" / "init.lua").write_text("-- policy\n")
    (tmp_path / "kumodr.yaml").write_text(PLAN.format(tmp_path))
    for words in (("vault", "init", "--identity-out", str(tmp_path / "far" / "away.txt")), ("backup",)):
        subprocess.run([sys.executable, "-m", "kumodr", *words], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "kumodr.yaml"


def on_a_terminal(words: list[str], folder: Path, **environment: str) -> str:
    """Run a command with a terminal as its standard output; return what came there."""
    mine, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "kumodr", *words],
        cwd=folder, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(mine, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            text += piece
        os.close(mine)
        assert process.wait(30) == 0
    return text.decode()


def test_colour_only_on_a_terminal_and_never_with_no_color(plan: Path) -> None:
    assert "\x1b[1m" in on_a_terminal(["points"], plan.parent)
    assert "\x1b" not in on_a_terminal(["points"], plan.parent, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(["points", "--json"], plan.parent)
    done = subprocess.run([sys.executable, "-m", "kumodr", "points"], cwd=plan.parent, capture_output=True, check=True)
    assert b"\x1b" not in done.stdout + done.stderr
