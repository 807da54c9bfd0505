"""`kumodr points`: what can be restored."""

import argparse

from kumodr import errors
from kumodr.cli.options import add_vault_option, plan_if_any, vault_of
from kumodr.cli.terminal import Terminal, age_text, size_text
from kumodr.clock import system_clock, text_of_time
from kumodr.vault.points import survey
from kumodr.vault.verify import latest_verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_vault_option(parser)
    parser.epilog = "example:\n  kumodr points\n  kumodr points --vault /mnt/vault --json"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    vault = vault_of(arguments, plan_if_any(arguments))
    found = survey(vault, {})
    now = system_clock()
    documents: list[dict[str, object]] = []
    rows: list[list[str]] = []
    for point in reversed(found.points):
        verified = latest_verification(vault, point)
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
    if not rows and not found.problems:
        raise errors.PointMissing("the vault holds no recovery point", remedy="store one with `kumodr backup`")
    heads = ["POINT", "TAKEN (UTC)", "AGE", "MESSAGES", "SIZE", "COMPONENTS", "VERIFIED"]
    lines = terminal.table(heads, rows, right=(2, 3, 4)) + [f"PROBLEM: {problem}" for problem in found.problems]
    terminal.result({"points": documents, "problems": [str(problem) for problem in found.problems]}, lines)
    return errors.IMPERFECT if found.problems else errors.DONE
