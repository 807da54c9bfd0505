"""`kumodr scripts`: the tool tree that written recovery plans name, as thin calls of kumodr."""

import argparse
from pathlib import Path

from kumodr.cli.install import program, put
from kumodr.cli.terminal import Terminal
from kumodr.components.registry import configured
from kumodr.plan.load import load_plan, nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    install = tasks.add_parser("install", help="write backup/, recovery/ and testing/ below a folder")
    install.add_argument("directory", metavar="DIR", help="where they go, like /opt/scripts")
    install.add_argument("--dry-run", action="store_true", help="only print what would be written")
    install.add_argument("--plan", metavar="FILE", default=argparse.SUPPRESS, help="the plan (default: the nearest)")
    install.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    parser.epilog = (
        "example:\n  kumodr scripts install /opt/scripts --dry-run\n  kumodr scripts install /opt/scripts\n"
        "  /opt/scripts/recovery/restore-from-backup.sh --test"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Write the tree; what is there and not ours is never written over."""
    from kumodr.install.scripts import scripts

    plan_file = Path(arguments.plan).absolute() if arguments.plan else nearest(Path.cwd())
    plan = load_plan(str(plan_file))
    tree = scripts(Path(arguments.directory).absolute(), plan_file, plan, program(), configured(plan))
    return put(tree, terminal, do=not arguments.dry_run, again="the same command without --dry-run does it")
