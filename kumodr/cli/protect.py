"""`kumodr protect`: the continuous loop; it runs until it is stopped."""

import argparse
import os
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from kumodr import errors
from kumodr.cli.options import vault_of
from kumodr.cli.terminal import Terminal, age_text, size_text
from kumodr.clock import system_clock, time_of_text
from kumodr.plan.load import load_plan, nearest
from kumodr.protect.figures import Figures
from kumodr.protect.notify import ServiceManager


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say where it would go on, and do nothing")
    parser.epilog = (
        "It ends with SIGTERM or Ctrl-C: what the vault does not take in five seconds waits on local disk.\n\n"
        "example:\n  kumodr protect              in a terminal, or as a systemd service\n"
        "  kumodr protect --dry-run    would it go on, or begin with a new base, and why"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan_file = Path(arguments.plan).absolute() if arguments.plan else nearest(Path.cwd())
    plan = load_plan(str(plan_file))
    vault = vault_of(arguments, plan)
    from kumodr.vault.keys import NodeKey

    if arguments.dry_run:
        return dry_run(plan.state, vault.id, terminal)
    from kumodr.protect.agent import Agent

    key = NodeKey.load_or_create(Path(plan.state), plan.site)
    from kumodr.vault.recipients import sealed_to

    agent = Agent(plan_file, plan, sealed_to(vault, key), key, system_clock, terminal.note)
    stop = threading.Event()
    manager = ServiceManager(os.environ)

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        manager.stopping()

    def tell(figures: Figures) -> None:
        terminal.live(line(figures))
        manager.round_done(line(figures))

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    terminal.note(f"protecting {plan.site}, every {plan.protect.every:g} s, into {vault.store.address}")
    try:
        agent.run(stop, tell, manager.ready)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    figures = agent.board.now
    terminal.result(asdict(figures), [line(figures)])
    return errors.DONE


def dry_run(state: str, vault_id: str, terminal: Terminal) -> int:
    """Say where the loop would go on."""
    from kumodr.protect.progress import load_progress

    progress = load_progress(Path(state), vault_id)
    goes_on = progress is not None and progress.spool is not None
    backlog = sum(each.stat().st_size for each in Path(state, "backlog").glob("*.seg")) if os.path.isdir(state) else 0
    document = {
        "goes_on": goes_on,
        "epoch": progress.epoch if progress else None,
        "next": progress.next if progress else None,
        "base": progress.base.point if progress and progress.base else None,
        "backlog_bytes": backlog,
    }
    if progress is not None and goes_on:
        base = progress.base.point if progress.base else "none yet, so one would be taken"
        text = f"it would go on with segment {progress.next} of epoch {progress.epoch}, if the spool's logs allow it"
        lines = [text, f"  base: {base}", f"  waiting on local disk: {size_text(backlog)}"]
    else:
        lines = ["it would begin a new epoch, with a new base: how far an earlier run was is not known"]
    terminal.result(document, lines)
    return errors.DONE


def line(figures: Figures) -> str:
    """Return how it stands, in one line."""
    parts = [figures.state]
    if figures.recoverable_until:
        age = (system_clock() - time_of_text(figures.recoverable_until)).total_seconds()
        parts.append(f"everything up to {age_text(age)} ago can be recovered")
    if figures.messages_at_risk or figures.bytes_at_risk:
        parts.append(f"at risk {figures.messages_at_risk or 0:,} messages, {size_text(figures.bytes_at_risk or 0)}")
    if figures.backlog_bytes:
        parts.append(f"backlog {size_text(figures.backlog_bytes)}")
    if figures.trouble:
        parts.append(f"TROUBLE: {figures.trouble}")
    return "; ".join(parts)
