"""`kumodr spool reconcile`: what may be sent from a recovered spool, what is finished, uncertain or lost."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock, text_of_time

if TYPE_CHECKING:
    from kumodr.reconcile.apply import Applied
    from kumodr.reconcile.plan import Plan

SUMMARY = "compare a recovered spool with logs and stream: what is finished, uncertain, lost"
_SHOWN = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Given the task's parser, add its options."""
    add_evidence_options(parser)
    parser.add_argument(
        "--uncertain",
        choices=("send", "hold", "drop"),
        default="send",
        help="messages that may have been sent already: leave them to be sent (default), or take them out",
    )
    parser.add_argument("--apply", action="store_true", help="do it (restored copies only); nothing is destroyed")
    parser.epilog = (
        "example:\n  kumodr spool reconcile --spool /restored/spool --disaster '2026-11-23 14:03:07'\n"
        "  kumodr spool reconcile --spool /restored/spool --logs /mnt/logs --uncertain hold --out lists --apply\n"
        "  kumodr spool quarantine put-back --spool /restored/spool --reason held"
    )


def add_evidence_options(parser: argparse.ArgumentParser) -> None:
    """Given a parser, add what says which evidence counts."""
    parser.add_argument("--logs", metavar="DIR", action="append", default=[], help="more delivery logs, that survived")
    parser.add_argument("--disaster", metavar="TIME", help="when the site stopped (default: the end of the evidence)")
    parser.add_argument("--max-age", metavar="AGE", default="7d", help="the policy's max_age (default 7d)")
    parser.add_argument("--retry-interval", metavar="AGE", default="20m", help="the policy's shortest (default 20m)")
    parser.add_argument("--at", metavar="TIME", help="when KumoMTA will start (default: now)")
    parser.add_argument("--out", metavar="DIR", help="write the uncertain and the lost list there, as CSV and JSON")


def planned(arguments: argparse.Namespace, terminal: Terminal) -> "AbstractContextManager[Plan]":
    """Given the command line, give the plan."""
    from kumodr.cli.spool import age_of, places
    from kumodr.ledger.evidence import find_evidence
    from kumodr.reconcile.plan import reconcile
    from kumodr.reconcile.treatments import Terms

    meta, data, kind = places(arguments)
    evidence = find_evidence(meta.parent, [Path(each) for each in arguments.logs])
    terms = Terms(
        starts=_moment("--at", arguments.at) or system_clock(),
        disaster=_moment("--disaster", arguments.disaster),
        uncertain=getattr(arguments, "uncertain", "send"),
        max_age=age_of(arguments.max_age),
        retry_interval=age_of(arguments.retry_interval),
    )
    return reconcile(meta, data, kind, evidence, terms, terminal.progress)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Given the command line, print the plan, having done it where that is asked for."""
    from kumodr.cli.spool import places
    from kumodr.reconcile.lists import write_lists

    meta, data, kind = places(arguments)
    if arguments.apply:
        from kumodr.spool.copyrule import refuse_unless_copy

        refuse_unless_copy(meta, data, kind)
    with planned(arguments, terminal) as plan:
        written = write_lists(plan, Path(arguments.out)) if arguments.out else ()
        done = None
        if arguments.apply:
            from kumodr.reconcile.apply import apply

            done = apply(plan, meta, data, kind, terminal.progress)
        terminal.clear()
        if terminal.json:
            _write_document(plan, done, written, sys.stdout)
        else:
            terminal.result({}, _lines(plan, done, written, meta))
        return errors.IMPERFECT if imperfect(plan) else errors.DONE


def imperfect(plan: "Plan") -> bool:
    """Given a plan, say whether a person should look at it: something is lost, uncertain, damaged or unusual."""
    from kumodr.reconcile.treatments import FINISHED, STAYING

    unusual = any(count for name, count in plan.counts().items() if name not in (*STAYING, FINISHED))
    return unusual or any(plan.lost_counts()) or bool(plan.logs.problems or plan.spool.left)


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(system_clock().tzinfo)
    except ValueError as error:
        raise errors.UsageWrong(
            f"{option} {text!r} is no time", remedy="write it like '2026-11-23 14:03:07+01:00'"
        ) from error


def evidence_document(plan: "Plan") -> dict[str, Any]:
    """Given a plan, return what it rests on, as JSON values."""
    evidence = plan.evidence
    return {
        "spool_until": text_of_time(evidence.spool_until) if evidence.spool_until else None,
        "disaster": text_of_time(plan.disaster) if plan.disaster else None,
        "stream": evidence.finished_ids is not None,
        "logs": [str(each) for each in evidence.logs],
        "records": plan.logs.records,
        "lines_not_understood": plan.logs.not_understood,
        "newest_record": text_of_time(plan.logs.until) if plan.logs.until else None,
        "problems": list(plan.logs.problems),
    }


def evidence_lines(plan: "Plan") -> list[str]:
    """Given a plan, return what it rests on, as lines."""
    evidence, logs = plan.evidence, plan.logs
    known = f"{evidence.spool_until:%Y-%m-%d %H:%M:%S} UTC" if evidence.spool_until else "a time that is not known"
    stream = "; what the stream saw finished" if evidence.finished_ids else ""
    newest = f", the newest of {logs.until:%Y-%m-%d %H:%M:%S} UTC" if logs.until else ""
    until = f"{plan.disaster:%Y-%m-%d %H:%M:%S} UTC" if plan.disaster else "not known"
    lines = [
        f"evidence: the spool as of {known}; {logs.records:,} rows of delivery logs{newest}{stream}",
        f"taken for the time of the disaster: {until}",
    ]
    if logs.not_understood:
        lines.append(f"{logs.not_understood:,} lines of the logs are no records")
    return lines + [f"DAMAGED: {each}" for each in logs.problems[:_SHOWN]]


def _lines(plan: "Plan", done: "Applied | None", written: tuple[Path, ...], meta: Path) -> Iterator[str]:
    from kumodr.reconcile.treatments import MEANING, STAYING

    yield from evidence_lines(plan)
    yield f"{plan.spool.meta:,} messages in the spool, {plan.spool.data:,} bodies"
    for name, count in plan.counts().items():
        if count:
            yield f"  {count:>9,} {name}: {MEANING[name]}"
            if name not in STAYING:
                yield from _ids(plan.ids(name), count)
    certain, perhaps = plan.lost_counts()
    for count, what, is_certain in ((certain, "lost", True), (perhaps, "perhaps lost", False)):
        if count:
            yield f"  {count:>9,} {what}: acknowledged, and neither in the spool nor in the log as finished"
            yield from _ids(plan.lost_ids(certain=is_certain), count)
    yield from (f"note: {each.reason}: {each.detail}" for each in plan.spool.left[:_SHOWN])
    yield from (f"written: {path}" for path in written)
    if done is not None:
        yield f"{done.moved:,} moved to {meta.parent / 'quarantine'}; recipients taken off {done.trimmed:,}"
    elif plan.move_count or plan.trim_count:
        yield "`--apply` does it on a restored copy, and keeps what it takes out"


def _ids(ids: Iterator[str], count: int) -> Iterator[str]:
    yield from (f"              {each}" for each in islice(ids, _SHOWN))
    if count > _SHOWN:
        yield f"              … and {count - _SHOWN:,} more (--json lists all)"


def _write_document(plan: "Plan", done: "Applied | None", written: tuple[Path, ...], file: IO[str]) -> None:
    """Write one JSON document, ids as they come: there may be millions."""
    from kumodr.reconcile.treatments import FINISHED, MEANING, TO_SEND, TRIMMED, UNCERTAIN

    head = {
        "messages": plan.spool.meta,
        "bodies": plan.spool.data,
        "evidence": evidence_document(plan),
        "notes": [asdict(each) for each in plan.spool.left],
        "written": [str(path) for path in written],
        "applied": None if done is None else asdict(done),
        "recipients_taken_off": plan.trim_count,
    }
    file.write(json.dumps(head, indent=2)[:-2])
    counts, main = plan.counts(), (TO_SEND, FINISHED, TRIMMED, UNCERTAIN)
    for name in main:
        file.write(f',\n  "{name}": ')
        _write_ids(file, counts[name], plan.ids(name))
    certain, perhaps = plan.lost_counts()
    file.write(',\n  "lost": ')
    _write_ids(file, certain, plan.lost_ids(certain=True))
    file.write(',\n  "perhaps_lost": ')
    _write_ids(file, perhaps, plan.lost_ids(certain=False))
    file.write(',\n  "others": {')
    for number, name in enumerate(each for each in MEANING if each not in main):
        file.write(("," if number else "") + f'\n    "{name}": ')
        _write_ids(file, counts[name], plan.ids(name))
    file.write("\n  }\n}\n")


def _write_ids(file: IO[str], count: int, ids: Iterator[str]) -> None:
    file.write(f'{{"count": {count}, "ids": [')
    for number, each in enumerate(ids):
        file.write(("," if number else "") + f'"{each}"')
    file.write("]}")
