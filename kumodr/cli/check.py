"""`kumodr check`: is protection set up and flowing?"""

import argparse
import os

from kumodr import errors
from kumodr.cli.findings import document_of, is_good, lines_of
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock
from kumodr.components.protocol import Finding
from kumodr.components.registry import component, configured
from kumodr.discover.running import host_findings, service_findings, site_findings
from kumodr.plan.load import load_plan
from kumodr.recover.readiness import kumod_findings, protect_findings, vault_findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--read-policy",
        action="store_true",
        help="read the Lua policy as text, never run it: is all that it writes in the plan, is any of it risky",
    )
    parser.epilog = "example:\n  kumodr check\n  kumodr check --read-policy"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = load_plan(arguments.plan)
    found: list[tuple[str, Finding]] = [("vault", each) for each in vault_findings(plan)]
    for name in configured(plan):
        found += [(name, each) for each in component(name, plan, system_clock).health()]
    if plan.components.spool is not None:
        found += [("protect", each) for each in protect_findings(plan, system_clock)]
    found += [("kumod", each) for each in kumod_findings(plan)]
    found += [("runtime", each) for each in service_findings(plan, say=terminal.note)]
    found += [("host", each) for each in host_findings(plan)]
    read_policy = bool(arguments.read_policy)
    found += [
        ("site", each) for each in site_findings(plan, may_read=read_policy, environment=os.environ, say=terminal.note)
    ]
    # The same may be found from several sides: it is said once, where it was found first.
    found = list({each.text: (place, each) for place, each in reversed(found)}.values())[::-1]
    terminal.result(document_of(found), lines_of(found))
    return errors.DONE if is_good(found) else errors.IMPERFECT
