"""`kumodr spool lost`: what did we lose, and whose was it?"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kumodr import errors
from kumodr.cli.spool_reconcile import add_evidence_options, evidence_document, evidence_lines, planned
from kumodr.cli.terminal import Terminal

if TYPE_CHECKING:
    from kumodr.reconcile.plan import Plan

SUMMARY = "what was acknowledged and is missing, and whose it was"
_SHOWN = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Given the task's parser, add its options."""
    add_evidence_options(parser)
    parser.epilog = (
        "example:\n  kumodr spool lost --spool /restored/spool --logs /mnt/old-host/logs\n"
        "  kumodr spool lost --spool /restored/spool --out /root/lists"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Given the command line, print what is missing by tenant, campaign and domain, and the messages."""
    from kumodr.reconcile.lists import write_lists

    with planned(arguments, terminal) as plan:
        written = write_lists(plan, Path(arguments.out)) if arguments.out else ()
        terminal.clear()
        if terminal.json:
            _write_document(plan, written, sys.stdout)
        else:
            terminal.result({}, _lines(plan, written, terminal))
        return errors.IMPERFECT if any(plan.lost_counts()) else errors.DONE


def _lines(plan: "Plan", written: tuple[Path, ...], terminal: Terminal) -> Iterator[str]:
    certain, perhaps = plan.lost_counts()
    yield from evidence_lines(plan)
    if not certain and not perhaps:
        yield "nothing is lost: every message that the log received is in the spool, or finished"
    else:
        yield f"{certain:,} messages are lost, {perhaps:,} more perhaps"
    for what in ("tenant", "campaign", "domain"):
        rows = plan.lost_by(what)
        if rows:
            yield ""
            shown = [[_plain(name) or "-", f"{lost:,}", f"{more:,}"] for name, lost, more in rows[:_SHOWN]]
            yield from terminal.table([what.upper(), "LOST", "PERHAPS"], shown, right=(1, 2))
            if len(rows) > _SHOWN:
                yield f"… and {len(rows) - _SHOWN:,} more (--json lists all)"
    if certain or perhaps:
        yield ""
    for each in islice(plan.lost(), _SHOWN):
        made = f"{each.received:%Y-%m-%d %H:%M:%S}" if each.received else "no time"
        to = ", ".join(each.recipients[:3]) + (f" +{len(each.recipients) - 3}" if len(each.recipients) > 3 else "")
        yield _plain(f"{each.id}  {made}  {each.sender or '<>'}  {to}  {each.queue or '-'}  {each.why}")
    if certain + perhaps > _SHOWN:
        yield f"… and {certain + perhaps - _SHOWN:,} more (--json or --out lists all)"
    yield from (f"written: {path}" for path in written)


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _write_document(plan: "Plan", written: tuple[Path, ...], file: IO[str]) -> None:
    from kumodr.reconcile.lists import document

    certain, perhaps = plan.lost_counts()
    head = {
        "evidence": evidence_document(plan),
        "lost": certain,
        "perhaps_lost": perhaps,
        "written": [str(path) for path in written],
        **{
            f"by_{what}": [{what: name, "lost": lost, "perhaps_lost": more} for name, lost, more in plan.lost_by(what)]
            for what in ("tenant", "campaign", "domain")
        },
    }
    file.write(json.dumps(head, indent=2)[:-2] + ',\n  "messages": [')
    for number, each in enumerate(plan.lost()):
        file.write(("," if number else "") + "\n    " + json.dumps(document(each)))
    file.write("\n  ]\n}\n")
