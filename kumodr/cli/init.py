"""`kumodr init`: look at this machine and write a commented kumodr.yaml."""

import argparse
from pathlib import Path

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.durable import write_file
from kumodr.plan.discover import discover, discover_lab
from kumodr.plan.load import NAME, parse_plan
from kumodr.plan.render import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lab", metavar="DIR", help="the site of `kumodr lab up` there; everything else is found out")
    parser.add_argument("--spool", metavar="DIR", help="directory with meta and data (default: /var/spool/kumomta)")
    parser.add_argument("--logs", action="append", default=[], metavar="DIR", help="delivery logs (may be repeated)")
    parser.add_argument("--config", action="append", default=[], metavar="PATH", help="configuration (may be repeated)")
    parser.add_argument("--redis", metavar="URL", help="redis://HOST:PORT")
    parser.add_argument("--prometheus", metavar="DIR", help="Prometheus's data folder")
    parser.add_argument("--prometheus-url", metavar="URL", help="its address")
    parser.add_argument("--http", metavar="URL", help="KumoMTA's HTTP listener")
    parser.add_argument("--vault", metavar="URL", help="where recovery points go (default: vault, beside the plan)")
    parser.add_argument("--site", default="primary", help="this site's name (default: primary)")
    parser.add_argument("--out", metavar="FILE", default=NAME, help="the file to write; never written over")
    parser.epilog = (
        "example:\n  kumodr init --lab /tmp/lab --out my-plan.yaml\n"
        "  kumodr init --vault /mnt/vault --redis redis://127.0.0.1:6379 --http http://127.0.0.1:8000"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    out = Path(arguments.out).absolute()
    if out.exists():
        raise errors.UsageWrong(f"{out} exists", remedy="name another file with --out; init never writes over a plan")
    if arguments.lab:
        found = discover_lab(Path(arguments.lab), arguments.vault)
    else:
        found = discover(
            site=arguments.site,
            vault=arguments.vault or str(out.parent / "vault"),
            state=str(out.parent / "kumodr-state"),
            spool=arguments.spool,
            logs=arguments.logs,
            config=arguments.config,
            redis=arguments.redis,
            prometheus=arguments.prometheus,
            prometheus_url=arguments.prometheus_url,
            http=arguments.http,
        )
    text = render(found.values).encode()
    parse_plan(text, out)
    try:
        write_file(out, text, mode=0o644)
    except OSError as error:
        raise errors.UsageWrong(f"{out} cannot be written: {error.strerror}", remedy="name another file") from error
    covered = list(found.values["components"])
    lines = [f"wrote {out}: it covers {', '.join(covered)}"]
    lines += [f"  not covered: {each}" for each in found.uncovered]
    lines += [
        "next:",
        "  kumodr vault init --identity-out FILE    a file on another machine, or on a stick",
        "  kumodr check",
    ]
    terminal.result({"plan": str(out), "covered": covered, "uncovered": list(found.uncovered)}, lines)
    return errors.IMPERFECT if found.uncovered else errors.DONE
