"""`kumodr mail-test`: a message through the mail server, followed by its id to its end."""

import argparse
import time
from pathlib import Path

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock, text_of_time
from kumodr.plan.load import load_plan

_PAUSE = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="ADDRESS", required=True, help="where the message goes")
    parser.add_argument("--from", metavar="ADDRESS", dest="sender", help="the envelope's sender (default: as --to)")
    parser.add_argument("--smtp", metavar="HOST:PORT", help="where it is handed in (default: kumod.smtp in the plan)")
    parser.add_argument("--limit", metavar="SECONDS", type=float, default=60.0, help="how long to follow (default 60)")
    parser.epilog = (
        "example:\n  kumodr mail-test --to postmaster@example.com\n  kumodr mail-test --to test@example.com --json"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Exit code 0 where it was delivered, 3 where its end is not known yet, 1 where it bounced or was not taken."""
    from kumodr.mailserver.http import MailServer
    from kumodr.mailserver.mailtest import follow, send

    plan = load_plan(arguments.plan)
    address = arguments.smtp or plan.kumod.smtp
    if address is None:
        raise errors.UsageWrong(
            "the plan does not say where mail is handed in", remedy="set kumod.smtp, or give --smtp"
        )
    sent = send(address, arguments.sender or arguments.to, arguments.to, system_clock)
    if sent.id is None:
        text = f"accepted in {sent.seconds:.2f} s, but the answer names no id, so it cannot be followed: {sent.answer}"
        nothing = dict.fromkeys(("id", "ended", "seconds", "response", "attempts"))
        known = {"accepted": text_of_time(sent.accepted), "accept_seconds": sent.seconds, "how": "unknown"}
        terminal.result(nothing | known, [text])
        return errors.IMPERFECT
    terminal.live(f"following {sent.id}")
    logs = [Path(each) for each in plan.components.logs.directories] if plan.components.logs else []
    server = MailServer(plan.kumod.http) if plan.kumod.http else None
    ended = follow(sent, logs, server, system_clock, lambda: time.sleep(_PAUSE), arguments.limit)
    took = (ended.ended - sent.accepted).total_seconds() if ended.ended is not None else None
    document = {
        "id": sent.id,
        "accepted": text_of_time(sent.accepted),
        "accept_seconds": sent.seconds,
        "how": ended.how,
        "ended": text_of_time(ended.ended) if ended.ended is not None else None,
        "seconds": took,
        "response": ended.response,
        "attempts": ended.attempts,
    }
    lines = [f"accepted in {sent.seconds:.2f} s as {sent.id}"]
    if took is not None:
        lines.append(f"{ended.how} {max(0.0, took):.2f} s later: {ended.response}")
    elif ended.how == "left the spool":
        lines.append("it left the spool, but no log says how yet: an open segment is written late; look again later")
    else:
        said = f"; the last answer was: {ended.response}" if ended.response else ""
        lines.append(f"still waiting after {arguments.limit:g} s, {ended.attempts} attempts{said}")
    terminal.result(document, lines)
    return {"delivered": errors.DONE, "transferred": errors.DONE, "bounced": errors.FAILED}.get(
        ended.how, errors.IMPERFECT
    )
