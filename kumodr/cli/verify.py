"""`kumodr verify`: is what is stored good?"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

from kumodr import errors
from kumodr.cli.options import add_identity_option, add_vault_option, identities_of, plan_if_any, vault_of
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock
from kumodr.components.registry import vetter
from kumodr.recover.choose import Chosen
from kumodr.recover.restore import restore
from kumodr.vault.facts import Point
from kumodr.vault.keys import Identities, NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.points import find, survey
from kumodr.vault.verify import Verification, record_verification, verify_deep, verify_shallow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("point", nargs="?", help="the recovery point (default: the newest)")
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
    found = survey(vault, identities.pins if identities else {})
    point = find(found.points, arguments.point)
    if identities is None:
        result = verify_shallow(vault, point)
    elif level == "deep":
        result = verify_deep(vault, point, identities, terminal.progress)
    else:
        result = verify_restore(vault, point, identities, arguments.scratch, terminal)
    key = NodeKey.load_or_create(Path(plan.state), plan.site) if plan else None
    elsewhere = [str(problem) for problem in found.problems]
    try:
        record_verification(vault, point, level, result, system_clock, key)
    except (errors.StoreReadOnly, errors.StoreFull) as error:
        elsewhere.append(f"the result could not be recorded: {error}")
    return report(point, level, result, elsewhere, terminal)


def verify_restore(
    vault: Vault, point: Point, identities: Identities, scratch: str | None, terminal: Terminal
) -> Verification:
    """Given a point, restore the whole of it to a scratch directory, vet it there, and clear the directory away."""
    with tempfile.TemporaryDirectory(prefix="kumodr-verify-", dir=scratch) as folder:
        chosen = [Chosen(point, section) for section in point.sections]
        vetters = {each.component: vetter(each.component, system_clock) for each in point.sections}
        try:
            restored = restore(
                vault,
                chosen,
                identities,
                Path(folder) / "restored",
                vetters,
                clock=system_clock,
                progress=terminal.progress,
            )
        except (errors.ComponentDamaged, errors.ObjectDamaged, errors.ObjectMissing, errors.ManifestUnsafe) as error:
            return Verification((error.what,), {})
    facts = {each.chosen.section.component: dict(each.verdict.facts) for each in restored}
    return Verification((), facts)


def report(point: Point, level: str, result: Verification, chain: Iterable[str], terminal: Terminal) -> int:
    """Print what was found; return 0, 3 where only other points have problems, or 1 where this one is not good."""
    problems = list(result.problems)
    elsewhere = list(chain)
    document = {
        "point": point.id,
        "level": level,
        "good": not problems,
        "problems": problems,
        "facts": dict(result.facts),
        "problems_of_the_vault": elsewhere,
    }
    lines = [f"{point.id} is {'NOT good' if problems else 'good'} ({level})"]
    lines += [f"  {problem}" for problem in problems] + [f"  elsewhere in the vault: {text}" for text in elsewhere]
    terminal.result(document, lines)
    if problems:
        return errors.FAILED
    return errors.IMPERFECT if elsewhere else errors.DONE
