"""`kumodr plan`: the plan as it is understood, its schema, a sample."""

import argparse
import json
from dataclasses import asdict

from kumodr import errors
from kumodr.cli.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("show", "schema", "sample"), help="the plan in use, JSON Schema, or a sample")
    parser.epilog = (
        "example:\n  kumodr plan show\n  kumodr plan sample > kumodr.yaml\n  kumodr plan schema > schema.json"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.what == "schema":
        from kumodr.plan.schema import json_schema

        document = json_schema()
        terminal.result(document, [json.dumps(document, indent=2)])
    elif arguments.what == "sample":
        from kumodr.plan.render import SAMPLE, render

        terminal.result({"sample": render(SAMPLE)}, [render(SAMPLE).rstrip()])
    else:
        from kumodr.plan.load import load_plan

        document = asdict(load_plan(arguments.plan))
        terminal.result(document, [json.dumps(document, indent=2)])
    return errors.DONE
