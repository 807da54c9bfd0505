"""`kumodr health`: does the mail service work now?"""

import argparse

from kumodr import errors
from kumodr.cli.findings import document_of, lines_of
from kumodr.cli.terminal import Terminal
from kumodr.plan.load import load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  kumodr health\n  kumodr health --json"


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Exit code 0 where all is well, 3 for warnings, 1 where something does not work."""
    from kumodr.mailserver.health import health_of

    found = health_of(load_plan(arguments.plan), terminal.live)
    worst = {each.level for _, each in found}
    terminal.result(document_of(found), lines_of(found))
    return errors.FAILED if "bad" in worst else errors.IMPERFECT if "warning" in worst else errors.DONE
