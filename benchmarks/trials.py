"""The long run of the kill trials, and its result as a section of the page.

`tests/test_trials.py` reads KUMODR_TRIALS (how many) and writes its result to the file named by
KUMODR_TRIALS_REPORT: one JSON object. Its lists of objects become tables, everything else rows of the first table.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import columns, facts

REPOSITORY = Path(__file__).resolve().parent.parent


def run_trials(count: int, report: Path, test: str) -> tuple[int, float]:
    """Given how many and where the report goes, run the trials. Return pytest's exit code and the seconds."""
    environment = {**os.environ, "KUMODR_TRIALS": str(count), "KUMODR_TRIALS_REPORT": str(report)}
    begun = time.monotonic()
    command = [sys.executable, "-m", "pytest", test, "-q"]
    code = subprocess.run(command, env=environment, cwd=REPOSITORY, check=False, stdout=sys.stderr).returncode
    return code, time.monotonic() - begun


def trials_section(
    report: Mapping[str, Any], count: int, passed: bool, seconds: float, about: Mapping[str, str], day: str
) -> str:
    """Given the report of the trials and how they ended, return the section of the page."""
    ended = "all tests passed" if passed else "**tests FAILED**"
    lines = ["## Killed at any moment: what a recovery point must hold", ""]
    lines += [f"Measured {day} by `script/bench trials`: {count:,} trials wanted, {seconds:,.0f} s, {ended}.", ""]
    lines += [facts("Machine", about), ""]
    rows = {name: value for name, value in report.items() if not isinstance(value, list)}
    if rows:
        lines += [*columns(("what", "result"), [[_words(name), _text(value)] for name, value in rows.items()]), ""]
    for name, value in report.items():
        if _is_table(value):
            heads = list(dict.fromkeys(key for row in value for key in row))
            table = columns(
                [_words(head) for head in heads], [[_text(row.get(head)) for head in heads] for row in value]
            )
            lines += [f"**{_words(name)}**", "", *table, ""]
    return "\n".join(lines)


def read_report(path: Path) -> dict[str, Any]:
    """Given the report's path, return it. Raise ValueError where it is not there or no JSON object."""
    if not path.exists():
        raise ValueError(f"the trials wrote no report to {path}")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object")
    return found


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{_words(str(key))} {_text(each)}" for key, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(each) for each in value)
    return str(value)
