"""`kumodr points`: what can be restored."""

import argparse
from datetime import datetime

from kumodr import errors
from kumodr.cli.options import add_vault_option, plan_if_any, vault_of
from kumodr.cli.terminal import Terminal, age_text, size_text
from kumodr.clock import system_clock, text_of_time
from kumodr.recover.choose import Streams
from kumodr.recover.ranges import Range, ranges
from kumodr.vault.points import survey
from kumodr.vault.verified import latest_verifications


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_vault_option(parser)
    parser.epilog = "example:\n  kumodr points\n  kumodr points --vault /mnt/vault --json"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    vault = vault_of(arguments, plan_if_any(arguments))
    found = survey(vault, {})
    now = system_clock()
    latest = latest_verifications(vault, found.points)
    documents: list[dict[str, object]] = []
    rows: list[list[str]] = []
    for point in reversed(found.points):
        verified = latest[point.id]
        documents.append(
            {
                "point": point.id,
                "taken": text_of_time(point.taken),
                "components": {
                    each.component: {"files": each.files, "size": each.size, "facts": dict(each.facts)}
                    for each in point.sections
                },
                "failures": dict(point.failures),
                "verified": verified,
            }
        )
        spool = point.section("spool")
        rows.append(
            [
                point.id,
                f"{point.taken:%Y-%m-%d %H:%M:%S}",
                age_text((now - point.taken).total_seconds()),
                str(spool.facts.get("messages", "?")) if spool else "-",
                size_text(sum(each.size for each in point.sections)),
                " ".join([each.component for each in point.sections] + [f"(no {name})" for name in point.failures]),
                f"{verified['level']} {'good' if verified['good'] else 'BAD'}" if verified else "never",
            ]
        )
    continuous, wrong = ranges(found.points, Streams(vault, {}, short=True))
    problems = [str(problem) for problem in (*found.problems, *wrong)]
    if not rows and not problems:
        raise errors.PointMissing("the vault holds no recovery point", remedy="store one with `kumodr backup`")
    heads = ["POINT", "TAKEN (UTC)", "AGE", "MESSAGES", "SIZE", "COMPONENTS", "VERIFIED"]
    lines = terminal.table(heads, rows, right=(2, 3, 4)) + [sentence(each, now) for each in reversed(continuous)]
    lines += [f"PROBLEM: {problem}" for problem in problems]
    document = {"points": documents, "ranges": [describe(each, now) for each in continuous], "problems": problems}
    terminal.result(document, lines)
    return errors.IMPERFECT if problems else errors.DONE


def describe(each: Range, now: datetime) -> dict[str, object]:
    """Return the JSON facts of one range."""
    return {
        "node": each.node,
        "epoch": each.epoch,
        "bases": list(each.bases),
        "from": text_of_time(each.begun),
        "to": text_of_time(each.until),
        "age": round((now - each.until).total_seconds(), 3),
        "first": each.first,
        "last": each.last,
        "segments": each.segments,
        "rollups": each.rollups,
    }


def sentence(each: Range, now: datetime) -> str:
    """Return one line about one range."""
    rollups = f" and {each.rollups:,} roll-ups of them" if each.rollups else ""
    return (
        f"{each.node}: continuous from {each.begun:%Y-%m-%d %H:%M:%S} ({each.bases[0]}) to "
        f"{each.until:%Y-%m-%d %H:%M:%S}, {each.segments:,} segments{rollups}, "
        f"last {age_text((now - each.until).total_seconds())} ago"
    )
