"""`kumodr restore`: bring a stored state back into an empty directory."""

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
from kumodr.recover.choose import Chosen, StreamChoice, choose_state
from kumodr.recover.restore import Recovered, restore
from kumodr.recover.target import live_paths, why_not_target
from kumodr.vault.points import survey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("point", nargs="?", help="exactly this recovery point (default: the newest state)")
    parser.add_argument("--to", metavar="DIR", required=True, help="an empty or new directory")
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="the newest state not after this time: '2026-11-23 14:03:07' (this machine's zone, or with one), or -5m",
    )
    parser.add_argument("--no-stream", action="store_true", help="only what a recovery point holds by itself")
    parser.add_argument(
        "--component", action="append", default=[], choices=NAMES, help="only this one (may be repeated)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be restored, and from which age")
    add_vault_option(parser)
    add_identity_option(parser)
    parser.epilog = (
        "example:\n  kumodr restore --to /srv/recovered --identity key.txt\n"
        "  kumodr restore --at '2026-11-23 14:03:07' --to /srv/recovered\n"
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
    state = choose_state(
        vault,
        found.points,
        identities.pins,
        wanted=arguments.point,
        at=time_wanted(arguments.at, system_clock),
        components=arguments.component,
        streamed=not arguments.no_stream,
    )
    for problem in (*found.problems, *state.problems):
        terminal.note(f"PROBLEM in the vault: {problem}")
    if arguments.dry_run:
        document = {
            "would_restore": [describe(each) for each in state.chosen],
            "stream": describe_stream(state.stream) if state.stream else None,
        }
        lines = [sentence(each) for each in state.chosen]
        terminal.result(document, [*lines, *([stream_sentence(state.stream)] if state.stream else [])])
        return errors.DONE
    vetters = {each.section.component: vetter(each.section.component, system_clock) for each in state.chosen}
    recovered = restore(vault, state, identities, target, vetters, clock=system_clock, progress=terminal.progress)
    for problem in recovered.problems:
        terminal.note(f"PROBLEM in the vault: {problem}")
    report(recovered, target, terminal, time.monotonic() - begun)
    imperfect = bool(found.problems) or bool(state.problems) or not recovered.is_perfect
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


def describe_stream(stream: StreamChoice) -> dict[str, object]:
    """Return the JSON facts of the stream that goes on top."""
    reach = stream.extent
    return {
        "base": stream.base.id,
        "epoch": reach.epoch,
        "first": reach.first,
        "last": reach.last,
        "taken": text_of_time(reach.taken),
    }


def sentence(chosen: Chosen) -> str:
    """Return one line about one choice."""
    age = age_text((system_clock() - chosen.point.taken).total_seconds())
    section = chosen.section
    return (
        f"{section.component:<11} from {chosen.point.id}, {age} old: {section.files} files, {size_text(section.size)}"
    )


def stream_sentence(stream: StreamChoice) -> str:
    """Return one line about the stream on top."""
    reach = stream.extent
    age = age_text((system_clock() - reach.taken).total_seconds())
    return (
        f"{'stream':<11} on {stream.base.id}: numbers {reach.first} to {reach.last} of epoch {reach.epoch}, "
        f"up to {reach.taken:%Y-%m-%d %H:%M:%S} UTC, {age} ago"
    )


def report(recovered: Recovered, target: Path, terminal: Terminal, seconds: float) -> None:
    """Print what is back, and what the operator should know before using it."""
    restored, stream = recovered.components, recovered.stream
    document = {
        "target": str(target),
        "seconds": round(seconds, 3),
        "components": [
            describe(each.chosen)
            | {
                "until": text_of_time(each.until),
                "vetted": dict(each.verdict.facts),
                "imperfections": list(each.imperfections),
            }
            for each in restored
        ],
        "stream": stream.document if stream else None,
        "problems": [str(problem) for problem in recovered.problems],
    }
    lines = [f"restored and vetted in {seconds:.1f} s: {target}"]
    for each in restored:
        lines.append("  " + sentence(each.chosen))
        lines += [f"    note: {text}" for text in each.imperfections]
    if stream is not None and stream.head is not None:
        lines.append(
            f"  {'stream':<11} numbers {stream.first} to {stream.last} of epoch {stream.epoch} on top: the state of "
            f"{stream.head.taken:%Y-%m-%d %H:%M:%S} UTC"
        )
    if any(each.chosen.section.component == "spool" for each in restored):
        lines += [
            "Starting KumoMTA on this spool sends every message in it at once. Before that:",
            f"  kumodr spool reconcile --spool {target / 'spool'}",
            f"and `kumodr place {target}` then puts everything where the site has it.",
        ]
    terminal.result(document, lines)
