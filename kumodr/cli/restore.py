"""`kumodr restore`: bring a recovery point back into an empty directory."""

import argparse
import time
from pathlib import Path

from kumodr import errors
from kumodr.cli.options import (
    add_identity_option,
    add_vault_option,
    identities_of,
    plan_if_any,
    time_wanted,
    vault_of,
)
from kumodr.cli.terminal import Terminal, age_text, size_text
from kumodr.clock import system_clock, text_of_time
from kumodr.components.registry import NAMES, vetter
from kumodr.recover.choose import Chosen, choose
from kumodr.recover.restore import Restored, restore
from kumodr.recover.target import live_paths, why_not_target
from kumodr.vault.points import survey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("point", nargs="?", help="the recovery point (default: the newest)")
    parser.add_argument("--to", metavar="DIR", required=True, help="an empty or new directory")
    parser.add_argument("--at", metavar="TIME", help="the newest state not after this time, like '2026-11-23 14:03:07'")
    parser.add_argument(
        "--component", action="append", default=[], choices=NAMES, help="only this one (may be repeated)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be restored, and from which age")
    add_vault_option(parser)
    add_identity_option(parser)
    parser.epilog = (
        "example:\n  kumodr restore --to /srv/recovered --identity key.txt\n"
        "  kumodr restore primary-17 --to /srv/recovered --component spool\n"
        "  kumodr restore --vault /mnt/vault --identity key.txt --to /srv/recovered   on an empty machine"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    begun = time.monotonic()
    plan = plan_if_any(arguments)
    target = Path(arguments.to).absolute()
    refusal = why_not_target(target, live_paths(plan) if plan else ())
    if refusal is not None:
        raise refusal
    vault = vault_of(arguments, plan)
    identities = identities_of(arguments)
    found = survey(vault, identities.pins)
    for problem in found.problems:
        terminal.note(f"PROBLEM in the vault: {problem}")
    chosen = choose(
        found.points,
        wanted=arguments.point,
        at=time_wanted(arguments.at, system_clock),
        components=arguments.component,
    )
    if arguments.dry_run:
        terminal.result({"would_restore": [describe(each) for each in chosen]}, [sentence(each) for each in chosen])
        return errors.DONE
    vetters = {each.section.component: vetter(each.section.component, system_clock) for each in chosen}
    restored = restore(vault, chosen, identities, target, vetters, clock=system_clock, progress=terminal.progress)
    imperfect = bool(found.problems) or any(each.imperfections for each in restored)
    report(restored, target, terminal, time.monotonic() - begun)
    return errors.IMPERFECT if imperfect else errors.DONE


def describe(chosen: Chosen) -> dict[str, object]:
    """Return the JSON facts of one choice."""
    return {
        "component": chosen.section.component,
        "point": chosen.point.id,
        "taken": text_of_time(chosen.point.taken),
        "files": chosen.section.files,
        "size": chosen.section.size,
        "facts": dict(chosen.section.facts),
    }


def sentence(chosen: Chosen) -> str:
    """Return one line about one choice."""
    age = age_text((system_clock() - chosen.point.taken).total_seconds())
    section = chosen.section
    return (
        f"{section.component:<11} from {chosen.point.id}, {age} old: {section.files} files, {size_text(section.size)}"
    )


def report(restored: tuple[Restored, ...], target: Path, terminal: Terminal, seconds: float) -> None:
    """Print what is back, and what the operator should know before using it."""
    document = {
        "target": str(target),
        "seconds": round(seconds, 3),
        "components": [
            describe(each.chosen) | {"vetted": dict(each.verdict.facts), "imperfections": list(each.imperfections)}
            for each in restored
        ],
    }
    lines = [f"restored and vetted in {seconds:.1f} s: {target}"]
    for each in restored:
        lines.append("  " + sentence(each.chosen))
        lines += [f"    note: {text}" for text in each.imperfections]
    if any(each.chosen.section.component == "spool" for each in restored):
        lines += [
            "Starting KumoMTA on this spool sends every message in it at once. Before that:",
            f"  kumodr spool vet --spool {target / 'spool'}",
        ]
    terminal.result(document, lines)
