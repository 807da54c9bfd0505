"""`kumodr spool diff`: what came, went and changed between two states of a spool."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.cli.options import add_identity_option, add_vault_option, identities_of, plan_if_any, time_wanted, vault_of
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock, text_of_time

SUMMARY = "what came, went and changed between two points, times or directories"
_SHOWN = 10


def add_task(tasks: Any) -> None:
    """Given the tasks of `kumodr spool`, add this one: it names its spools as none of the others does."""
    parser: argparse.ArgumentParser = tasks.add_parser("diff", help=SUMMARY, description=SUMMARY, allow_abbrev=False)
    parser.set_defaults(act=run)
    parser.add_argument("--plan", metavar="FILE", default=argparse.SUPPRESS, help="the plan that names the vault")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    parser.add_argument(
        "a", metavar="A", help="a recovery point, a time ('2026-11-23 14:03:07', -5m, latest), or a directory"
    )
    parser.add_argument("b", metavar="B", help="likewise")
    parser.add_argument("--scratch", metavar="DIR", help="where points are restored (default: the temporary folder)")
    add_vault_option(parser)
    add_identity_option(parser)
    parser.epilog = (
        "example:\n  kumodr spool diff -1h latest --identity key.txt\n"
        "  kumodr spool diff primary-17 primary-18 --identity key.txt\n  kumodr spool diff /restored/spool latest"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.recover.difference import difference
    from kumodr.spool.reader import open_spool

    with ExitStack() as held:
        spools = []
        described: list[dict[str, object]] = []
        for name in (arguments.a, arguments.b):
            spool, about = state_of(name, arguments, terminal, held)
            described.append({"name": name, **about})
            spools.append(held.enter_context(open_spool(spool / "meta", spool / "data")))
        found = difference(*spools)
        groups = {"only_a": found.only_a, "only_b": found.only_b, "changed": found.changed}
        counts = {name: ids.count for name, ids in groups.items()} | {"same": found.same}
        if terminal.json:
            terminal.clear()
            head = json.dumps({"a": described[0], "b": described[1], "counts": counts})
            write_json(head[:-1], groups.items())
            return errors.DONE
        words = {"only_a": f"only in {arguments.a}", "only_b": f"only in {arguments.b}", "changed": "changed metadata"}
        width = max(map(len, words.values()))
        lines = [f"{words[name]:<{width}}  {ids.count:,}" for name, ids in groups.items()]
        lines.append(f"{'the same in both':<{width}}  {found.same:,}")
        for name, ids in groups.items():
            lines += [f"{words[name]}:"] if ids.count else []
            lines += [f"  {identifier}" for identifier in islice(ids, _SHOWN)]
            lines += [f"  … and {ids.count - _SHOWN:,} more (--json lists all)"] if ids.count > _SHOWN else []
        terminal.result({}, lines)
    return errors.DONE


def state_of(
    name: str, arguments: argparse.Namespace, terminal: Terminal, held: ExitStack
) -> tuple[Path, dict[str, object]]:
    """Given how a state is named, return the directory with its halves, and what it is: a directory as it is, else
    restored to a scratch directory that `held` takes away. Raise UsageWrong, PointMissing.
    """
    place = Path(name)
    if "/" in name or place.is_dir():
        for spool in (place, place / "spool"):
            if (spool / "meta").is_dir() and (spool / "data").is_dir():
                return spool, {"directory": str(spool)}
        raise errors.SpoolMissing(
            f"{name} holds no spool: neither meta and data nor spool", remedy="name its directory"
        )
    from kumodr.recover.choose import choose_state
    from kumodr.recover.restore import fetch_state
    from kumodr.vault.points import survey

    plan = plan_if_any(arguments)
    vault, identities = vault_of(arguments, plan), identities_of(arguments)
    points = survey(vault, identities.pins).points
    is_point = any(point.id == name for point in points)
    at: datetime | None = None
    if not is_point:
        try:
            at = time_wanted(name, system_clock)
        except errors.UsageWrong:
            raise errors.UsageWrong(
                f"{name!r} is no recovery point, no time and no directory",
                remedy="list the points with `kumodr points`",
            ) from None
    state = choose_state(vault, points, identities.pins, wanted=name if is_point else None, at=at, components=["spool"])
    folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kumodr-diff-", dir=arguments.scratch)))
    _, applied, problems = fetch_state(vault, state, identities, folder, folder / ".work", terminal.progress)
    for problem in problems:
        terminal.note(f"PROBLEM in the vault: {problem}")
    until = applied.head.taken if applied and applied.head else state.chosen[0].point.taken
    return folder / "spool", {"point": state.chosen[0].point.id, "until": text_of_time(until)}


def write_json(head: str, groups: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Write one document, id by id: lists may be long."""
    sys.stdout.write(head)
    for name, ids in groups:
        sys.stdout.write(f', "{name}": [')
        for number, identifier in enumerate(ids):
            sys.stdout.write(f'{"," if number else ""}\n  "{identifier}"')
        sys.stdout.write("]")
    sys.stdout.write("}\n")
