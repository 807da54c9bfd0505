"""`kumomta-cli`: the command that written recovery plans call, answered through KumoMTA's real interfaces."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.plan.load import load_plan

_EXAMPLE = """example:
  kumomta-cli test --email test@example.com
  kumomta-cli spool status
  kumomta-cli queue depth
  kumomta-cli performance analyze"""

_LOOK = 2.0
_RECENT = 600.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = argparse.ArgumentParser(
        prog="kumomta-cli",
        description="Ask and use this site's KumoMTA; which one it is, kumodr.yaml says.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--plan", metavar="FILE", help="the plan (default: the nearest kumodr.yaml)")
    top.add_argument("--json", action="store_true", help="one JSON document on standard output")
    subjects = top.add_subparsers(dest="subject", required=True, metavar="test|spool|queue|performance")
    test = subjects.add_parser("test", help="send a message and follow it to its end", allow_abbrev=False)
    test.add_argument("--email", metavar="ADDRESS", required=True)
    for subject, what, text in (
        ("spool", ("status", "optimize"), "count it by reading all of it · compact it through KumoMTA"),
        ("queue", ("status", "depth"), "where mail waits · only how much"),
        ("performance", ("analyze", "metrics"), "why mail is slow · what moves"),
    ):
        subjects.add_parser(subject, help=text, allow_abbrev=False).add_argument("what", choices=what)
    return top


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Given the command line, answer it."""
    if arguments.subject == "test":
        return _verb(["mail-test", "--to", arguments.email], arguments)
    if (arguments.subject, arguments.what) == ("spool", "status"):
        return _verb(["spool", "status"], arguments)
    act = {
        "optimize": _optimize, "status": _queues, "depth": _depth, "analyze": _analyze, "metrics": _metrics
    }[arguments.what]  # fmt: skip
    return act(arguments, terminal)


def _verb(words: list[str], arguments: argparse.Namespace) -> int:
    from kumodr.cli.main import main

    plan = ["--plan", arguments.plan] if arguments.plan else []
    return main([*words, *plan, *(["--json"] if arguments.json else [])])


def _server(arguments: argparse.Namespace) -> Any:
    from kumodr.mailserver.http import MailServer

    http = load_plan(arguments.plan).kumod.http
    if http is None:
        raise errors.UsageWrong("the plan does not say how KumoMTA is asked", remedy="set kumod.http in kumodr.yaml")
    return MailServer(http)


def _optimize(arguments: argparse.Namespace, terminal: Terminal) -> int:
    server = _server(arguments)
    for name in ("meta", "data"):
        terminal.live(f"compacting {name}")
        if not server.compact(name):
            text = "this KumoMTA has no interface to compact its spool"
            raise errors.MailServerRefuses(text, remedy="nothing is to be done: RocksDB compacts by itself")
    terminal.result({"compacted": ["meta", "data"]}, ["both halves of the spool are compacted"])
    return errors.DONE


def _depth(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.mailserver.queues import queues_of

    depth = queues_of(_server(arguments).metrics()).depth
    terminal.result({"depth": depth}, [str(depth)])
    return errors.DONE


def _queues(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.mailserver.queues import queues_of

    queues = queues_of(_server(arguments).metrics())
    lines = [f"{queues.depth:,} messages wait, {queues.ready:,} of them ready to go"]
    for what, values in (("queue", queues.by_queue), ("domain", queues.by_domain), ("tenant", queues.by_tenant)):
        lines += [f"  {what:<7} {count:>10,}  {name}" for name, count in values]
    terminal.result({**asdict(queues), "depth": queues.depth}, lines)
    return errors.DONE


def _metrics(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.mailserver.rates import rates_between

    server = _server(arguments)
    before, began = server.metrics(), time.monotonic()
    time.sleep(_LOOK)
    rates = rates_between(before, server.metrics(), time.monotonic() - began)
    terminal.result(
        asdict(rates),
        [f"{name:<10} {value:>10,.1f} a second" for name, value in asdict(rates).items() if name != "seconds"],
    )
    return errors.DONE


def _analyze(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.ledger.recent import recent_records
    from kumodr.mailserver.performance import analyse

    server, logs = _server(arguments), load_plan(arguments.plan).components.logs
    terminal.live(f"looking for {_LOOK:g} s")
    before, began = server.metrics(), time.monotonic()
    time.sleep(_LOOK)
    after, seconds = server.metrics(), time.monotonic() - began
    directories = [Path(each) for each in logs.directories] if logs else []
    found = analyse(before, after, seconds, recent_records(directories, time.time() - _RECENT))
    lines = [f"{found.queues.depth:,} messages wait; {found.rates.delivered:,.1f} a second are delivered"]
    for each in found.causes:
        lines += [f"{each.rank}: {each.evidence}", f"  why: {each.cause}", f"  → {each.remedy} (risk: {each.risk})"]
    lines += [f"  answered {count:,} times: {text}" for text, count in found.answers]
    if not found.causes:
        lines.append("nothing speaks for a slow mail server")
    terminal.result({**asdict(found), "depth": found.queues.depth}, lines)
    return errors.IMPERFECT if found.causes else errors.DONE


def entry(words: Sequence[str] | None = None) -> int:
    """The command's way in."""
    from kumodr.cli.main import ended

    arguments = parser().parse_args(words)
    terminal = Terminal(json=arguments.json)
    return ended(lambda: run(arguments, terminal), terminal)


if __name__ == "__main__":
    sys.exit(entry())
