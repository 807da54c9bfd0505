"""`kumodr init`: look at this machine and write a commented kumodr.yaml."""

import argparse
import os
import sys
from pathlib import Path

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.discover.assemble import Discovered, Given
from kumodr.durable import write_file
from kumodr.plan.load import NAME, parse_plan
from kumodr.plan.render import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lab", metavar="DIR", help="the site of `kumodr lab up` there; everything else is found out")
    parser.add_argument(
        "--from",
        dest="way",
        choices=("compose", "systemd", "paths"),
        help="how KumoMTA runs (default: the compose project here, else systemd's units, else the usual places)",
    )
    parser.add_argument(
        "--compose-file", action="append", default=[], metavar="FILE", help="a compose file (may be repeated)"
    )
    parser.add_argument("--profile", action="append", default=[], help="a compose profile that is on (may be repeated)")
    parser.add_argument("--project", metavar="NAME", help="the compose project's name, where it is not the usual one")
    parser.add_argument("--service", metavar="NAME", help="the service or unit that is KumoMTA (default: found out)")
    parser.add_argument(
        "--read-policy", action="store_true", help="read the Lua policy as text, never run it; else a terminal is asked"
    )
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
        "example:\n  cd /opt/mail && kumodr init --read-policy --vault s3://bucket/mail\n"
        "  kumodr init --from systemd --read-policy --vault /mnt/vault\n"
        "  kumodr init --lab /tmp/lab --out my-plan.yaml\n"
        "  kumodr init --spool /srv/spool --vault /mnt/vault --redis redis://127.0.0.1:6379"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    out = Path(arguments.out).absolute()
    if out.exists():
        raise errors.UsageWrong(f"{out} exists", remedy="name another file with --out; init never writes over a plan")
    found = _lab(arguments) if arguments.lab else _around(arguments, out.parent, terminal)
    _with_itself(found, out)
    text = render(found.values).encode()
    parse_plan(text, out)
    try:
        write_file(out, text, mode=0o644)
    except OSError as error:
        raise errors.UsageWrong(f"{out} cannot be written: {error.strerror}", remedy="name another file") from error
    covered = list(found.values["components"])
    lines = [f"looked at {found.source}", f"wrote {out}: it covers {', '.join(covered) or 'nothing yet'}"]
    lines += [f"  not covered: {each}" for each in found.uncovered]
    for each in found.risks:
        lines += [f"  {'BAD' if each.level == 'bad' else 'RISK'}: {each.text}", f"    → {each.remedy}"]
    lines += [
        "next:",
        "  kumodr vault init --identity-out FILE    a file on another machine, or on a stick",
        "  kumodr check",
    ]
    document = {
        "plan": str(out),
        "source": found.source,
        "covered": covered,
        "uncovered": list(found.uncovered),
        "risks": [{"level": each.level, "text": each.text, "remedy": each.remedy} for each in found.risks],
    }
    terminal.result(document, lines)
    return errors.IMPERFECT if found.uncovered or found.risks else errors.DONE


def _with_itself(found: Discovered, out: Path) -> None:
    """Have the plan stored with the rest of the configuration: it is needed to be protected again."""
    paths: list[str] | None = found.values["components"].get("config", {}).get("paths")
    if paths is not None and not any(out.is_relative_to(each) for each in paths):
        paths.append(str(out))


def _lab(arguments: argparse.Namespace) -> Discovered:
    from kumodr.lab.site import open_site, plan_values

    directory = Path(arguments.lab).absolute()
    if (directory / "site" / "docker-compose.yml").exists():
        raise errors.UsageWrong(
            f"the lab site in {directory} runs by compose",
            remedy=f"run `kumodr init --read-policy` in {directory}/site",
        )
    site = open_site(directory)
    return Discovered(f"the lab site in {directory}", plan_values(site, arguments.vault or str(directory / "vault")))


def _around(arguments: argparse.Namespace, beside: Path, terminal: Terminal) -> Discovered:
    from kumodr.discover.around import Wanted, discover

    wanted = Wanted(
        directory=Path.cwd(),
        way=arguments.way or ("paths" if arguments.spool and not arguments.compose_file else None),
        files=[Path(each) for each in arguments.compose_file],
        profiles=arguments.profile,
        project=arguments.project,
        service=arguments.service,
    )
    given = Given(
        site=arguments.site,
        vault=arguments.vault or str(beside / "vault"),
        state=str(beside / "kumodr-state"),
        spool=arguments.spool,
        logs=arguments.logs,
        config=arguments.config,
        redis=arguments.redis,
        prometheus=arguments.prometheus,
        prometheus_url=arguments.prometheus_url,
        http=arguments.http,
    )

    def may_read(policy: str) -> bool:
        if arguments.read_policy or arguments.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return bool(arguments.read_policy)
        terminal.note(f"Read the policy {policy} as text, to find spools, logs, keys and risks? It is not run. [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return discover(wanted, given, may_read=may_read, say=terminal.note, environment=os.environ)
