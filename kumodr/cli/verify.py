"""`kumodr verify`: is what is stored good?"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.cli.options import add_identity_option, add_vault_option, identities_of, plan_if_any, vault_of
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock
from kumodr.components.registry import vetter
from kumodr.recover.choose import Chosen, State, Streams, choose_state
from kumodr.recover.restore import restore
from kumodr.vault.facts import Point
from kumodr.vault.keys import Identities, NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.points import find, survey
from kumodr.vault.streamverify import verify_stream
from kumodr.vault.verify import Verification, record_verification, verify_deep, verify_shallow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("point", nargs="?", help="the recovery point, and the stream on it (default: the newest)")
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--deep", action="store_true", help="fetch, decrypt and hash everything; needs the identity")
    level.add_argument(
        "--restore", action="store_true", help="restore to a scratch directory and vet; needs the identity"
    )
    parser.add_argument(
        "--scratch", metavar="DIR", help="where --restore works (default: the system's temporary folder)"
    )
    add_vault_option(parser)
    add_identity_option(parser)
    parser.epilog = "example:\n  kumodr verify\n  kumodr verify primary-17 --restore --identity key.txt"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = plan_if_any(arguments)
    vault = vault_of(arguments, plan)
    level = "restore" if arguments.restore else "deep" if arguments.deep else "shallow"
    identities = None if level == "shallow" else identities_of(arguments)
    pins = identities.pins if identities else {}
    found = survey(vault, pins)
    point = find(found.points, arguments.point)
    streams = Streams(vault, pins)
    base = base_of(vault, found.points, point, pins, named=arguments.point not in (None, "latest"))
    points = [point, base] if base is not None and base.id != point.id else [point]
    if level == "restore" and identities is not None:
        result = verify_restore(vault, points, base, streams, identities, arguments.scratch, terminal)
        results = [result] * len(points)
    else:
        results = [verify_point(vault, each, identities, terminal) for each in points]
    stream = stream_result(vault, base, streams, identities if level == "deep" else None, terminal)
    key = NodeKey.load_or_create(Path(plan.state), plan.site) if plan else None
    elsewhere = [str(problem) for problem in found.problems]
    for each, result in zip(points, results, strict=True):
        mine = stream if base is not None and each.id == base.id else None
        whole = Verification((*result.problems, *(mine.problems if mine else ())), result.facts)
        try:
            record_verification(vault, each, level, whole, system_clock, key, mine.facts if mine else None)
        except (errors.StoreReadOnly, errors.StoreFull) as error:
            elsewhere.append(f"the result could not be recorded: {error}")
    return report(points, level, results, stream, elsewhere, terminal)


def verify_point(vault: Vault, point: Point, identities: Identities | None, terminal: Terminal) -> Verification:
    """Given a point, look at its objects, into them with identities."""
    return verify_deep(vault, point, identities, terminal.progress) if identities else verify_shallow(vault, point)


def base_of(vault: Vault, points: Sequence[Point], point: Point, pins: Any, *, named: bool) -> Point | None:
    """Return the base whose stream is to be verified: the point itself, or where none was named and the newest point is
    none (only the configuration had changed), the one that `kumodr restore` would take.
    """
    if point.stream is not None or named:
        return point if point.stream is not None else None
    stream = choose_state(vault, points, pins).stream
    return stream.base if stream else None


def stream_result(
    vault: Vault, base: Point | None, streams: Streams, identities: Identities | None, terminal: Terminal
) -> Verification | None:
    """Given the base, verify the stream that goes on from it, if any does."""
    if base is None or base.stream is None:
        return None
    names = streams.listing(base.node, base.stream.epoch)
    return verify_stream(vault, names, base.stream.begin, streams.trust, identities, terminal.progress)


def verify_restore(
    vault: Vault,
    points: Sequence[Point],
    base: Point | None,
    streams: Streams,
    identities: Identities,
    scratch: str | None,
    terminal: Terminal,
) -> Verification:
    """Given points, restore the whole of them and the stream to a scratch directory, vet it, and clear it away."""
    chosen = {each.component: Chosen(point, each) for point in reversed(points) for each in point.sections}
    if base is not None:
        chosen |= {each.component: Chosen(base, each) for each in base.sections if each.component in ("spool", "logs")}
    stream = streams.on(base)[0] if base else None
    vetters = {name: vetter(name, system_clock) for name in chosen}
    with tempfile.TemporaryDirectory(prefix="kumodr-verify-", dir=scratch) as folder:
        try:
            recovered = restore(
                vault,
                State(tuple(chosen.values()), stream),
                identities,
                Path(folder) / "restored",
                vetters,
                clock=system_clock,
                progress=terminal.progress,
            )
        except (errors.ComponentDamaged, errors.ObjectDamaged, errors.ObjectMissing, errors.ManifestUnsafe) as error:
            return Verification((error.what,), {})
    facts: dict[str, Any] = {each.chosen.section.component: dict(each.verdict.facts) for each in recovered.components}
    if recovered.stream is not None:
        facts["stream"] = recovered.stream.document
    return Verification(tuple(problem.what for problem in recovered.problems), facts)


def report(
    points: Sequence[Point],
    level: str,
    results: Sequence[Verification],
    stream: Verification | None,
    chain: Iterable[str],
    terminal: Terminal,
) -> int:
    """Print what was found; return 0, 3 where only other points have problems, or 1 where this one is not good."""
    found = [*(problem for result in results for problem in result.problems)]
    found += stream.problems if stream else ()
    problems = list(dict.fromkeys(found))
    elsewhere = list(chain)
    facts = dict(results[0].facts)
    document = {
        "point": points[0].id,
        "level": level,
        "good": not problems,
        "problems": problems,
        "facts": facts,
        "points": [each.id for each in points],
        "stream": dict(stream.facts) if stream else None,
        "problems_of_the_vault": elsewhere,
    }
    names = " with ".join(each.id for each in points)
    if stream is not None:
        names += f" and its stream, numbers {stream.facts['first']} to {stream.facts['last']},"
    lines = [f"{names} is {'NOT good' if problems else 'good'} ({level})"]
    lines += [f"  {problem}" for problem in problems] + [f"  elsewhere in the vault: {text}" for text in elsewhere]
    terminal.result(document, lines)
    if problems:
        return errors.FAILED
    return errors.IMPERFECT if elsewhere else errors.DONE
