"""`kumodr standby`: keep a directory up to date with the stream, and promote it when it is needed."""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from kumodr import errors
from kumodr.cli.options import add_identity_option, add_vault_option, identities_of, plan_if_any, vault_of
from kumodr.cli.terminal import Terminal, age_text
from kumodr.clock import system_clock, text_of_time
from kumodr.components.registry import vetter
from kumodr.recover import standbyfile
from kumodr.recover.promote import imperfections, promote, stream_document, was_promoted
from kumodr.recover.standby import Moment, Standby
from kumodr.recover.target import MARKER, live_paths, why_not_target

_PLAIN_EVERY = 10.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="DIR", required=True, help="an empty or new directory, or a standby's")
    parser.add_argument("--every", metavar="TIME", default="1s", help="how often to look for more (default 1s)")
    parser.add_argument("--once", action="store_true", help="apply what is there, and end")
    parser.add_argument(
        "--promote", action="store_true", help="apply what is there, vet it, mark it as restored, and end: take over"
    )
    parser.add_argument("--node", metavar="NAME", help="which node's spool, where the vault holds several")
    add_vault_option(parser)
    add_identity_option(parser)
    parser.epilog = (
        "example:\n  kumodr standby --to /srv/standby --identity key.txt\n"
        "  kumodr standby --to /srv/standby --identity key.txt --promote\n\n"
        "Until it is promoted the directory holds no spool that a mail server could start on. It may be killed at any\n"
        "moment and started again. It follows the spool and the logs; restore other components when they are needed."
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    every = seconds(arguments.every)
    if arguments.once and arguments.promote:
        raise errors.UsageWrong("--once and --promote are two things", remedy="--promote applies what is there too")
    plan = plan_if_any(arguments)
    target = Path(arguments.to).absolute()
    if arguments.promote and was_promoted(target):
        terminal.result({"target": str(target), "promoted": "before"}, [f"{target} was promoted before; it is whole"])
        return errors.DONE
    if (target / MARKER).exists():
        raise errors.TargetNotEmpty(f"{target} is a restored directory, or was promoted already")
    if not (target / standbyfile.FOLDER).is_dir() or target.is_symlink():
        refusal = why_not_target(target, live_paths(plan) if plan else ())
        if refusal is not None:
            raise refusal
        if arguments.promote:
            raise errors.StandbyMissing(f"there is no standby in {target}")
    with standbyfile.locked(target):
        if arguments.promote:
            return promoted(arguments, target, terminal)
        standby = Standby(
            vault_of(arguments, plan), identities_of(arguments), target, system_clock, terminal.progress, arguments.node
        )
        try:
            if arguments.once:
                standby.catch_up()
                return report_once(standby, target, terminal)
            return follow(standby, every, terminal)
        finally:
            standby.close()


def follow(standby: Standby, every: float, terminal: Terminal) -> int:
    """Follow the stream until interrupted."""
    shown = Shown(terminal)
    pause = threading.Event()
    for moment in standby.follow(lambda seconds: not pause.wait(seconds), every):
        shown.show(moment)
    return errors.DONE


def promoted(arguments: argparse.Namespace, target: Path, terminal: Terminal) -> int:
    """Apply what is there, if the vault can be reached, and promote."""
    begun = time.monotonic()
    standing = standbyfile.load(target)
    behind: str | None = None
    if standing is not None and not standing.promoting:
        try:
            vault = vault_of(arguments, plan_if_any(arguments))
            standby = Standby(vault, identities_of(arguments), target, system_clock, terminal.progress, arguments.node)
            try:
                standby.catch_up()
                behind = standby.problem
            finally:
                standby.close()
        except (errors.StoreUnavailable, errors.VaultMissing) as error:
            behind = str(error)
            terminal.note(f"the vault cannot be asked for more: {error}")
    components = standing.sections if standing else {}
    vetters = {name: vetter(name, system_clock) for name in components}
    stood, verdicts = promote(target, vetters, system_clock)
    notes = {name: imperfections(name, stood, verdict) for name, verdict in verdicts.items()}
    document = {
        "target": str(target),
        "seconds": round(time.monotonic() - begun, 3),
        "until": stood.taken,
        "stream": stream_document(stood),
        "components": {name: {"vetted": dict(verdict.facts)} for name, verdict in verdicts.items()},
        "imperfections": notes,
        "problem": behind,
    }
    lines = [f"promoted and vetted in {document['seconds']} s: {target}, the state of {stood.taken}"]
    lines += [f"  note: {name}: {text}" for name, texts in notes.items() for text in texts]
    lines += [f"  PROBLEM: more could not be applied: {behind}"] if behind else []
    lines += [
        "Starting KumoMTA on this spool sends every message in it at once. Before that:",
        f"  kumodr spool reconcile --spool {target / 'spool'}",
    ]
    terminal.result(document, lines)
    return errors.IMPERFECT if behind or any(notes.values()) else errors.DONE


def report_once(standby: Standby, target: Path, terminal: Terminal) -> int:
    """Print how it stands after `--once`."""
    moment = standby.moment
    if moment is None:
        raise errors.PointMissing(
            "the vault holds no recovery point of a spool", remedy="store one with `kumodr backup`"
        )
    line = f"{target} holds the state of {moment.standing.taken}, {age_text(moment.lag)} ago"
    lines = [line, *([f"  PROBLEM: {moment.problem}"] if moment.problem else [])]
    terminal.result(document_of(moment), lines)
    return errors.IMPERFECT if moment.problem else errors.DONE


class Shown:
    """Says how the standby stands: a live line on a terminal, a line now and then elsewhere, JSON lines with --json."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._live = sys.stderr.isatty() and not terminal.json
        self._said = float("-inf")
        self._last: tuple[object, ...] = ()

    def show(self, moment: Moment) -> None:
        """Given how it stands, say so."""
        standing = moment.standing
        now = time.monotonic()
        text = f"{standing.base}, number {standing.applied} of epoch {standing.epoch}: lag {moment.lag:.1f} s"
        text += f"; PROBLEM: {moment.problem}" if moment.problem else ""
        if self._terminal.json:
            sys.stdout.write(json.dumps(document_of(moment)) + "\n")
            sys.stdout.flush()
        elif self._live:
            sys.stderr.write(f"\r\x1b[K{text[:200]}")
            sys.stderr.flush()
        elif now - self._said >= _PLAIN_EVERY or self._last != (standing.base, standing.epoch, moment.problem):
            sys.stdout.write(f"{text_of_time(system_clock())} {text}\n")
            sys.stdout.flush()
            self._said = now
        self._last = (standing.base, standing.epoch, moment.problem)


def document_of(moment: Moment) -> dict[str, object]:
    """Return the JSON facts of how a standby stands."""
    standing = moment.standing
    return {
        "base": standing.base,
        "epoch": standing.epoch,
        "applied": standing.applied,
        "until": standing.taken,
        "lag": round(moment.lag, 3),
        "problem": moment.problem,
    }


def seconds(text: str) -> float:
    """Given `--every`, return seconds. Raise UsageWrong."""
    for unit in ("ms", "s", "m"):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and 0.01 <= float(number) * _UNITS[unit] <= 3600:
            return float(number) * _UNITS[unit]
    raise errors.UsageWrong(f"--every {text!r} is no time", remedy="write it like 1s, 500ms or 1m")
