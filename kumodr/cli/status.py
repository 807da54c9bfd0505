"""`kumodr status`: the objectives against now, in one screen."""

import argparse

from kumodr import errors
from kumodr.cli.options import vault_of
from kumodr.cli.terminal import Terminal, age_text, size_text
from kumodr.clock import system_clock, text_of_time
from kumodr.components.registry import configured
from kumodr.plan.load import load_plan
from kumodr.recover.objectives import protections
from kumodr.vault.points import survey
from kumodr.vault.verify import latest_verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  kumodr status\n  kumodr status --json"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = load_plan(arguments.plan)
    vault = vault_of(arguments, plan)
    found = survey(vault, {})
    now = system_clock()
    verification = {point.id: latest_verification(vault, point) for point in found.points[-20:]}
    states = protections(found.points, configured(plan), plan.objectives, now, verification)
    rows = [
        [
            each.component,
            "MISSED" if each.problem else "met",
            age_text(each.age) if each.age is not None else "-",
            age_text(each.objective),
            each.point.id if each.point else "-",
            f"{each.verified['level']} {'good' if each.verified['good'] else 'BAD'}" if each.verified else "never",
        ]
        for each in states
    ]
    missed = [each for each in states if each.problem]
    unproved = [each for each in states if each.point and not each.verified]
    stored = sum(section.size for point in found.points[-1:] for section in point.sections)
    lines = [
        f"{plan.site}: {len(found.points)} recovery points in {plan.vault.url}, newest holds {size_text(stored)}",
        "",
        *terminal.table(["COMPONENT", "OBJECTIVE", "AGE", "ALLOWED", "POINT", "VERIFIED"], rows, right=(2, 3)),
        "",
    ]
    lines += [f"PROBLEM: {each.component}: {each.problem}; run `kumodr backup {each.component}`" for each in missed]
    lines += [f"PROBLEM in the vault: {problem}" for problem in found.problems]
    if unproved:
        lines.append("not verified yet: run `kumodr verify --restore --identity FILE` where the key is")
    document = {
        "site": plan.site,
        "time": text_of_time(now),
        "points": len(found.points),
        "components": [
            {
                "component": each.component,
                "point": each.point.id if each.point else None,
                "age_seconds": each.age,
                "objective_seconds": each.objective,
                "problem": each.problem,
                "verified": each.verified,
            }
            for each in states
        ],
        "problems": [str(problem) for problem in found.problems],
    }
    terminal.result(document, lines)
    return errors.IMPERFECT if missed or found.problems else errors.DONE
