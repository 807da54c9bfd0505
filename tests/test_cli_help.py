"""What the command says of itself: help with an example and exit codes, usage errors, and that it has a bug."""

import os
import re
import subprocess
import sys
from pathlib import Path

from kumodr.cli.main import VERBS


def environment_in(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}


def test_every_verb_has_help_with_an_example_and_usage_errors_are_2(tmp_path: Path) -> None:
    environment = environment_in(tmp_path)
    verbs = [(verb,) for verb in VERBS]
    while verbs:
        words = verbs.pop()
        done = subprocess.run(
            [sys.executable, "-m", "kumodr", *words, "--help"], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0
        example = done.stdout.partition("example:")[2].partition("exit codes:")[0]
        assert f"kumodr {' '.join(words)}" in example, words
        assert "exit codes:" in done.stdout, words
        if done.stdout.partition("\n\n")[0].endswith(" ..."):  # it has tasks
            listed = re.findall(r"^    ([a-z-]+)(?:  |$)", done.stdout.partition("arguments:")[2], re.MULTILINE)
            assert listed, words
            verbs += [(*words, each) for each in listed]
    for words in ([], ["nonsense"], ["backup", "--nonsense"], ["restore"]):
        done = subprocess.run([sys.executable, "-m", "kumodr", *words], capture_output=True, env=environment)
        assert done.returncode == 2, words


def test_a_bug_becomes_a_sentence_and_its_trace_goes_to_the_log(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom kumodr.cli import main, points\n"
        "def broken(*words):\n  raise ZeroDivisionError('a bug')\n"
        "points.run = broken\nsys.exit(main.main(['points']))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment_in(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    log = tmp_path / "state" / "kumodr" / "kumodr.log"
    assert str(log) in done.stderr
    assert "ZeroDivisionError" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
