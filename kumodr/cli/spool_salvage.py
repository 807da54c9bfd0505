"""`kumodr spool salvage`: bring out of a damaged spool what can be read, and fill the rest from a copy."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock

if TYPE_CHECKING:
    from kumodr.spool.salvage.salvage import Salvaged

SUMMARY = "bring out of a damaged spool every message that can be read, and fill the rest from a copy"
_SHOWN = 10


def add_task(tasks: Any) -> None:
    """Given the tasks of `kumodr spool`, add this one: its spool is a damaged one, so it is named differently."""
    parser: argparse.ArgumentParser = tasks.add_parser(
        "salvage", help=SUMMARY, description=SUMMARY, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.set_defaults(act=run)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    parser.add_argument("damaged", metavar="DIR", help="the damaged spool, with meta and data in it; it is only read")
    parser.add_argument("--copy", metavar="DIR", help="a restored spool, from which the rest is filled")
    parser.add_argument("--kind", choices=("auto", "rocksdb", "localdisk"), default="auto", help="of the damaged spool")
    parser.add_argument("--to", metavar="DIR", help="a new directory for the result; without it, only look")
    parser.epilog = (
        "example:\n  kumodr restore --component spool --at latest --to /restored --identity key.txt\n"
        "  kumodr spool salvage /var/spool/kumomta --copy /restored/spool --to /salvaged\n"
        "  kumodr spool vet --spool /salvaged/spool --apply\n"
        "  kumodr spool reconcile --spool /salvaged/spool --logs /var/log/kumomta --apply"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Given the command line, look, or salvage. Exit code 3 where something could not be read."""
    from kumodr.recover.target import why_not_target
    from kumodr.spool.salvage.salvage import salvage

    damaged = Path(arguments.damaged).absolute()
    copy = Path(arguments.copy).absolute() if arguments.copy else None
    target = Path(arguments.to).absolute() if arguments.to else None
    if target is not None:
        refusal = why_not_target(target, tuple(each for each in (damaged, copy) if each is not None))
        if refusal is not None:
            raise refusal
    found = salvage(
        damaged / "meta",
        damaged / "data",
        copy,
        target,
        kind=arguments.kind,
        clock=system_clock,
        progress=terminal.progress,
    )
    document = asdict(found)
    document["unknown"] = {half: [each.text for each in unknown] for half, unknown in found.unknown.items()}
    terminal.result(document | {"target": str(target) if target else None}, _lines(found, target))
    whole = not any((found.without_body, found.without_metadata, *found.unknown.values()))
    return errors.DONE if whole else errors.IMPERFECT


def _lines(found: "Salvaged", target: Path | None) -> list[str]:
    origins = f"{found.from_spool:,} from the damaged spool, {found.from_copy:,} from the copy"
    lines = [f"{found.messages:,} whole messages: {origins}, {found.from_both:,} with a part from each"]
    for half, unknown in found.unknown.items():
        lines += [f"{half}: {each.text}" for each in unknown[:_SHOWN]]
        lines += [f"{half}: … and {len(unknown) - _SHOWN:,} more (--json lists all)"] if len(unknown) > _SHOWN else []
    for what, ids in (("no body", found.without_body), ("no metadata", found.without_metadata)):
        lines += [f"{len(ids):,} messages have {what}: {', '.join(ids[:_SHOWN])}"] if ids else []
    if target is None:
        return [*lines, "nothing was written; give --to DIR to write the result"]
    return [
        *lines,
        f"written to {target / 'spool'}; before a mail server starts on it:",
        f"  kumodr spool vet --spool {target / 'spool'} --apply",
        f"  kumodr spool reconcile --spool {target / 'spool'} --logs DIR --apply",
    ]
