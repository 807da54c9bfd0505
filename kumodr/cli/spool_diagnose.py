"""`kumodr spool diagnose`: is the spool sound? If not: the evidence, what can be read, and what to do."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock

if TYPE_CHECKING:
    from kumodr.spool.diagnose import Diagnosis

SUMMARY = "is the spool sound? the evidence, and how many messages can be read; nothing is touched"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Given the task's parser, add its example."""
    parser.epilog = "example:\n  kumodr spool diagnose\n  kumodr spool diagnose --spool /var/spool/kumomta --json"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Given the command line, print the diagnosis. Exit code 3 where the spool is damaged."""
    from kumodr.cli.spool import places
    from kumodr.spool.diagnose import diagnose

    meta, data, kind = places(arguments)
    found = diagnose(meta, data, kind, system_clock, terminal.progress)
    terminal.result({**asdict(found), "meta": str(meta), "data": str(data)}, _lines(found, str(meta.parent)))
    return errors.DONE if found.verdict == "sound" else errors.IMPERFECT


def _lines(found: "Diagnosis", spool: str) -> list[str]:
    lines = [f"the spool is {found.verdict}; {found.readable:,} messages can be read whole"]
    lines += [f"  {each.witness}: {each.text}" for each in found.evidence]
    lines += [f"  beside that, {each.witness}: {each.text}" for each in found.told]
    if found.verdict == "damaged":
        lines += [
            "stop the mail server and remove nothing; then, with what the vault has:",
            "  kumodr restore --component spool --at latest --to /restored --identity FILE",
            f"  kumodr spool salvage {spool} --copy /restored/spool --to /salvaged",
        ]
    return lines
