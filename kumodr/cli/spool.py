"""`kumodr spool`: look into a spool, live or a copy, without changing it; take messages out of a restored copy."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors
from kumodr.cli import spool_diagnose, spool_diff, spool_lost, spool_reconcile, spool_salvage
from kumodr.cli.terminal import Terminal, size_text
from kumodr.clock import system_clock, text_of_time

if TYPE_CHECKING:
    from kumodr.spool.explain import Explained
    from kumodr.spool.listing import Choice, Listed
    from kumodr.spool.reader import Spool
    from kumodr.spool.vet import Finding

_EXAMPLE = """example:
  kumodr spool status
  kumodr spool list --domain example.com
  kumodr spool show 3f4835f0e78911f1a99b660aaeccde59 --raw > message.eml
  kumodr spool export --spool /restored/spool --domain example.com --format mbox --to mail
  kumodr spool vet --spool /restored/spool --apply
  kumodr spool quarantine list --spool /restored/spool"""

_SHOWN = 10
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EXAMPLE
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    status = _task(tasks, "status", _status, "count the spool, reading all of it with every check")
    status.add_argument("--logs", metavar="DIR", action="append", help="log directory to explain what is in one half")
    listing = _task(tasks, "list", _list, "list messages")
    _add_choice(listing)
    listing.add_argument("--limit", metavar="N", type=_count, help="stop after N messages")
    show = _task(tasks, "show", _show, "show one message: envelope and body")
    show.add_argument("id", metavar="ID")
    show.add_argument("--raw", action="store_true", help="the body's bytes exactly, and nothing else")
    vet = _task(tasks, "vet", _vet, "name what KumoMTA would not simply load and send when it starts")
    vet.add_argument("--apply", action="store_true", help="move those messages into quarantine (restored copies only)")
    vet.add_argument("--max-age", metavar="AGE", default="7d", help="the policy's max_age, like 7d or 36h (default 7d)")
    vet.add_argument("--at", metavar="TIME", help="when KumoMTA will start (default: now)")
    export = _task(tasks, "export", _export, "write messages as files that mail programs read")
    export.add_argument("--to", metavar="DIR", required=True, help="a new or empty directory")
    export.add_argument("--format", choices=("eml", "mbox", "maildir"), default="eml")
    export.add_argument("id", metavar="ID", nargs="*", help="which messages (default: all, or those chosen)")
    _add_choice(export)
    spool_reconcile.add_options(_task(tasks, "reconcile", spool_reconcile.run, spool_reconcile.SUMMARY))
    spool_lost.add_options(_task(tasks, "lost", spool_lost.run, spool_lost.SUMMARY))
    spool_diff.add_task(tasks)
    spool_diagnose.add_options(_task(tasks, "diagnose", spool_diagnose.run, spool_diagnose.SUMMARY))
    spool_salvage.add_task(tasks)
    quarantine = _task(tasks, "quarantine", _quarantine, "list what was taken out, or put it back")
    quarantine.add_argument("action", choices=("list", "put-back"))
    quarantine.add_argument("id", metavar="ID", nargs="*", help="which messages to put back")
    quarantine.add_argument("--all", action="store_true", help="put everything back")
    quarantine.add_argument("--reason", metavar="TEXT", help="only what was taken out for this reason, like held")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    return arguments.act(arguments, terminal)


def _task(
    tasks: Any, name: str, act: Callable[[argparse.Namespace, Terminal], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = tasks.add_parser(
        name,
        help=summary,
        description=summary,
        allow_abbrev=False,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    parser.add_argument("--plan", metavar="FILE", default=argparse.SUPPRESS, help="the plan that names the spool")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    parser.add_argument("--spool", metavar="DIR", help="directory with meta/ and data/, instead of a plan")
    parser.add_argument("--meta", metavar="DIR", help="with --data: the halves, instead of a plan")
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--kind", choices=("auto", "rocksdb", "localdisk"), help="default: found out from the files")
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    for name, what in (("domain", "of a recipient"), ("tenant", ""), ("queue", ""), ("sender", "")):
        parser.add_argument(f"--{name}", metavar=name.upper(), help=f"only those with this {name} {what}".strip())


def places(arguments: argparse.Namespace) -> tuple[Path, Path, str]:
    """Given the command line, return meta, data and kind: from the command line, else from the plan."""
    if arguments.spool:
        return Path(arguments.spool, "meta"), Path(arguments.spool, "data"), arguments.kind or "auto"
    if arguments.meta and arguments.data:
        return Path(arguments.meta), Path(arguments.data), arguments.kind or "auto"
    if arguments.meta or arguments.data:
        raise errors.UsageWrong("one half of the spool is missing", remedy="give both --meta DIR and --data DIR")
    from kumodr.plan.load import load_plan

    spool = load_plan(arguments.plan).components.spool
    if spool is None:
        raise errors.SpoolMissing("the plan names no spool", remedy="add components.spool, or give --spool DIR")
    return Path(spool.meta), Path(spool.data), arguments.kind or spool.kind


def _status(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.spool.explain import explain
    from kumodr.spool.snapshot import snapshot

    meta, data, kind = places(arguments)
    taken = system_clock()
    with snapshot(meta, data, kind) as held:
        census, kind = held.validate(), held.kind
    directories = [Path(each) for each in arguments.logs or _logs_of_plan(arguments)]
    explained = explain(census, _fates(directories, {*census.without_body, *census.without_meta}), taken)
    document = {"kind": kind, **asdict(census), "explained": [asdict(each) for each in explained]}
    lines = [
        f"{kind} spool, read to the end at {taken:%H:%M:%S} UTC" if census.problem is None else f"{kind} spool",
        f"  messages  {census.meta_count:,}",
        f"  bodies    {census.data_count:,} ({size_text(census.body_bytes)})",
        f"  metadata without a body  {census.without_body_count:,}{_reasons(explained, 'meta')}",
        f"  bodies without metadata  {census.without_meta_count:,}{_reasons(explained, 'data')}",
    ]
    if census.problem is not None:
        lines.append(f"  damaged: {_plain(census.problem)}")
    terminal.result(document, lines)
    return errors.DONE if census.problem is None else errors.IMPERFECT


def _reasons(explained: "Iterable[Explained]", part: str) -> str:
    counts: dict[str, int] = {}
    for each in explained:
        if each.part == part:
            counts[each.why] = counts.get(each.why, 0) + 1
    return "".join(f"\n    {count:,} {why}" for why, count in sorted(counts.items()))


def _logs_of_plan(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the log directories of the plan where the spool is the plan's too."""
    if arguments.spool or arguments.meta:
        return ()
    from kumodr.plan.load import load_plan

    logs = load_plan(arguments.plan).components.logs
    return logs.directories if logs else ()


def _fates(directories: list[Path], wanted: set[str]) -> Any:
    from kumodr.ledger.fates import fates
    from kumodr.ledger.records import parse
    from kumodr.ledger.segments import read_records, segment_paths

    if not wanted:
        return {}
    paths = (path for directory in directories for path in segment_paths(directory))
    records = (record for path in paths for line in read_records(path) if (record := parse(line)) is not None)
    return fates(records, wanted)


def _opened(arguments: argparse.Namespace) -> "AbstractContextManager[Spool]":
    from kumodr.spool.reader import open_spool

    return open_spool(*places(arguments))


def _choice(arguments: argparse.Namespace) -> "Choice":
    from kumodr.spool.listing import Choice

    return Choice(arguments.domain, arguments.tenant, arguments.queue, arguments.sender)


def _list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from itertools import islice

    from kumodr.spool.listing import listing

    with _opened(arguments) as spool:
        messages = islice(listing(spool, _choice(arguments)), arguments.limit)
        if terminal.json:
            return _write_messages(map(_document, messages))
        for message in messages:
            made = f"{message.created:%Y-%m-%d %H:%M:%S}" if message.created else "no time in the id"
            more = f" +{len(message.recipients) - 1}" if len(message.recipients) > 1 else ""
            to = (message.recipients or ("",))[0] + more
            words = (message.id, made, message.queue or "-", message.sender or "<>", to, message.problem or "")
            sys.stdout.write(_plain("  ".join(words)).rstrip() + "\n")
    return errors.DONE


def _write_messages(documents: Iterator[dict[str, Any]]) -> int:
    """Write one JSON document, message by message as they come; damage met on the way ends it, and is said in it."""
    sys.stdout.write('{"messages": [')
    failure: errors.KumodrError | None = None
    try:
        for number, document in enumerate(documents):
            sys.stdout.write(("," if number else "") + "\n  " + json.dumps(document))
    except errors.KumodrError as error:
        failure = error
    sys.stdout.write(f'\n], "error": {json.dumps(str(failure) if failure else None)}}}\n')
    return failure.exit_code if failure else errors.DONE


def _document(message: "Listed") -> dict[str, Any]:
    return {**asdict(message), "created": text_of_time(message.created) if message.created else None}


def _show(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.spool.listing import listed

    with _opened(arguments) as spool:
        body = spool.body(arguments.id)
        if arguments.raw:
            sys.stdout.flush()
            sys.stdout.buffer.write(body)
            sys.stdout.buffer.flush()
            return errors.DONE
        raw = spool.raw_metadata(arguments.id)
    message = listed(arguments.id.replace("-", "").lower(), raw)
    envelope = _document(message)
    text = body.decode("utf-8", "replace")
    stored = raw.decode("utf-8", "replace")
    exact = {"body": text, "body_base64": None} if text.encode() == body else _encoded(body)
    document = {**envelope, "size": len(body), "metadata": stored, **exact}
    lines = [f"{name:<11} {_plain(_words(value))}" for name, value in envelope.items() if value is not None]
    lines += [f"{'metadata':<11} {_plain(stored)}", f"{'size':<11} {len(body)}", "", _plain(text, "\n\t")]
    terminal.result(document, lines)
    return errors.DONE


def _encoded(body: bytes) -> dict[str, str | None]:
    """Return a body that is no UTF-8 so that JSON holds every byte of it."""
    from base64 import b64encode

    return {"body": None, "body_base64": b64encode(body).decode()}


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _plain(text: str, keep: str = "") -> str:
    """Return the text without anything that a terminal would obey: mail is other people's text."""
    return "".join(each if each.isprintable() or each in keep else "" if each == "\r" else "\ufffd" for each in text)


def _vet(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.spool import quarantine
    from kumodr.spool.vet import vet

    meta, data, kind = places(arguments)
    if arguments.apply:
        from kumodr.spool.copyrule import refuse_unless_copy

        refuse_unless_copy(meta, data, kind)
    findings = vet(meta, data, kind, _moment(arguments.at), age_of(arguments.max_age))
    moved: tuple[str, ...] = ()
    if arguments.apply:
        moved = quarantine.apply(findings, meta, data, kind, terminal.progress).moved
    document = {"findings": [asdict(each) for each in findings], "moved": list(moved)}
    lines = _finding_lines(findings) or ["nothing found: KumoMTA would load every message, and send it at once"]
    if moved:
        lines.append(f"{len(moved):,} moved to {quarantine.folder_of(meta)}")
    elif any(each.id for each in findings):
        lines.append("`kumodr spool vet --apply` moves these messages out of a restored copy")
    terminal.result(document, lines)
    return errors.IMPERFECT if findings else errors.DONE


def _finding_lines(findings: "Iterable[Finding]") -> list[str]:
    groups: dict[str, list[Finding]] = {}
    for each in findings:
        groups.setdefault(each.reason, []).append(each)
    lines: list[str] = []
    for reason, group in groups.items():
        lines.append(f"{len(group):,} × {reason}: {group[0].effect}")
        lines += [_plain(f"  {each.id or ''} {each.detail}".rstrip()) for each in group[:_SHOWN]]
        if len(group) > _SHOWN:
            lines.append(f"  … and {len(group) - _SHOWN:,} more (--json lists all)")
    return lines


def _moment(text: str | None) -> datetime:
    from kumodr.cli.options import time_wanted

    return time_wanted(text, system_clock) or system_clock()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of messages")
    return int(text)


def age_of(text: str) -> timedelta:
    """Given an age like 7d, 36h or 20m, return it. Raise UsageWrong."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdigit():
        raise errors.UsageWrong(f"{text!r} is no age", remedy="write it like 7d, 36h or 90m")
    return timedelta(seconds=int(number) * _UNITS[unit])


def _export(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.spool.export import export
    from kumodr.spool.listing import listing

    target = Path(arguments.to)
    if arguments.id and _choice(arguments).asks:
        raise errors.UsageWrong("messages are named and chosen at once", remedy="give ids, or --domain and the like")
    with _opened(arguments) as spool:
        wanted = arguments.id or (each.id for each in listing(spool, _choice(arguments)))
        report = export(spool, iter(wanted), target, arguments.format)
    document = {"messages": report.written, "without_body": list(report.without_body), "to": str(target)}
    lines = [f"{report.written:,} messages written to {target}"]
    lines += [f"  {each} has no body" for each in report.without_body[:_SHOWN]]
    terminal.result(document, lines)
    return errors.IMPERFECT if report.without_body else errors.DONE


def _quarantine(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.spool import quarantine

    meta, data, kind = places(arguments)
    held = [each for each in quarantine.each_listed(meta) if arguments.reason in (None, each.reason)]
    if arguments.action == "list":
        document = {"folder": str(quarantine.folder_of(meta)), "messages": [asdict(each) for each in held]}
        lines = [_plain(f"{each.id}  {each.reason}  {each.detail}".rstrip()) for each in held]
        terminal.result(document, lines or ["nothing is in quarantine"])
        return errors.DONE
    wanted = [each.id for each in held] if arguments.all else [each.replace("-", "").lower() for each in arguments.id]
    if arguments.reason and not wanted:
        wanted = [each.id for each in held]
    elif not wanted and not arguments.all:
        raise errors.UsageWrong("no message is named", remedy="give ids, --reason, or --all")
    done = quarantine.put_back(wanted, meta, data, kind, arguments.reason)
    terminal.result({"put_back": list(done)}, [f"{len(done):,} messages put back"])
    return errors.DONE
