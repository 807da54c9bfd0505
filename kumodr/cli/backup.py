"""`kumodr backup`: a recovery point now."""

import argparse
import time
from pathlib import Path

from kumodr import errors
from kumodr.cli.options import component_names, vault_of
from kumodr.cli.terminal import Terminal, size_text
from kumodr.clock import system_clock, text_of_time
from kumodr.components.registry import component
from kumodr.plan.load import load_plan
from kumodr.protect.base import Base, in_order, take_base
from kumodr.vault.backup import begin_backup
from kumodr.vault.keys import NodeKey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("component", nargs="*", help="only these components (default: all that the plan names)")
    parser.epilog = "example:\n  kumodr backup            everything in the plan\n  kumodr backup spool logs"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    begun = time.monotonic()
    plan = load_plan(arguments.plan)
    names = in_order(component_names(arguments.component, plan))
    vault = vault_of(arguments, plan)
    state = Path(plan.state)
    key = NodeKey.load_or_create(state, plan.site)
    with begin_backup(vault, key, state, system_clock, terminal.progress) as session:
        base = take_base(session, [component(name, plan, system_clock) for name in names])
    report(base, terminal, time.monotonic() - begun)
    return errors.IMPERFECT if base.failures else errors.DONE


def report(base: Base, terminal: Terminal, seconds: float) -> None:
    """Print the point that was stored."""
    point = base.point
    document = {
        "point": point.id,
        "taken": text_of_time(point.taken),
        "seconds": round(seconds, 3),
        "components": {
            section.component: {"files": section.files, "size": section.size, "facts": dict(section.facts)}
            for section in point.sections
        },
        "failures": {name: str(error) for name, error in base.failures.items()},
    }
    lines = [f"{point.id} stored in {seconds:.1f} s, taken {text_of_time(point.taken)}"]
    for section in point.sections:
        messages = section.facts.get("messages")
        counted = f"{messages} messages, " if messages is not None else ""
        lines.append(f"  {section.component:<11} {counted}{section.files} files, {size_text(section.size)}")
    lines += [f"  {name:<11} NOT STORED: {error}" for name, error in base.failures.items()]
    terminal.result(document, lines)
