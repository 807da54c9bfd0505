"""`kumodr lab`: a miniature mail site on this machine, to try everything on."""

import argparse
import asyncio
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.lab.opening import AnySite, is_there, open_any

if TYPE_CHECKING:
    from kumodr.lab.options import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="up|load|break|status|down")
    up = _verb(verbs, "up", "make a site, or start the one that is there")
    up.add_argument("--kind", choices=("RocksDB", "LocalDisk"), default="RocksDB", help="of the spool")
    up.add_argument("--runtime", choices=("process", "compose"), default="process", help="processes, or containers")
    up.add_argument("--kumod", metavar="PATH", help="a real kumod, instead of the stand-in")
    up.add_argument("--kumod-image", metavar="NAME", help="compose: a real KumoMTA image, instead of the stand-in")
    up.add_argument("--bare", action="store_true", help="compose: without kumodr, as a site that nobody protects yet")
    up.add_argument("--vault", metavar="URL", help="what the site's kumodr.yaml names (default: DIR/vault)")
    up.add_argument("--retry-interval", type=float, default=5.0, metavar="SECONDS", help="of deferred mail (default 5)")
    up.add_argument("--max-age", type=float, default=604800.0, metavar="SECONDS", help="of mail (default 7 days)")
    up.add_argument("--write-buffer-size", type=int, metavar="BYTES", help="small ones make many tables")
    up.add_argument("--seed", type=int, help="makes the stand-in's ids repeatable")
    up.add_argument("--restored", metavar="DIR", help="make the site of what `kumodr restore` brought back")
    load = _verb(verbs, "load", "send mail to the site; ends by itself")
    load.add_argument("--rate", type=float, default=100.0, help="messages a second (0: as fast as can be)")
    load.add_argument("--count", type=int, default=1000, help="messages (default 1000)")
    load.add_argument("--size", type=int, default=4000, help="bytes of the body")
    load.add_argument("--connections", type=int, default=4, help="beside each other (default 4)")
    load.add_argument("--deferred", type=float, default=0.0, metavar="SHARE", help="of recipients that the sink defers")
    load.add_argument("--refused", type=float, default=0.0, metavar="SHARE", help="of recipients that the sink refuses")
    load.add_argument("--seed", type=int, default=1, help="the same mail for the same seed")
    broken = _verb(verbs, "break", "break something, repeatably")
    broken.add_argument("--seed", type=int, default=1, help="what it meets: the same for the same seed and files")
    _verb(verbs, "status", "what runs, and how the mail stands")
    down = _verb(verbs, "down", "stop every process")
    down.add_argument("--remove", action="store_true", help="and remove the directory")
    parser.epilog = (
        "example:\n  kumodr lab up /tmp/lab\n  kumodr lab load /tmp/lab --rate 100 --count 1000\n"
        "  kumodr lab break kill /tmp/lab --seed 7\n  kumodr lab status /tmp/lab\n  kumodr lab down /tmp/lab --remove\n"
        "  kumodr lab up /tmp/boxes --runtime compose"
    )


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    if name == "break":
        from kumodr.lab.faults import FAULTS

        parser.description = "\n".join([text + ":", *(f"  {fault:<16} {FAULTS[fault].__doc__}" for fault in FAULTS)])
        parser.add_argument("fault", help="one of those above")
    parser.add_argument("directory", nargs="?", default=".", help="the lab's directory (default: here)")
    return parser


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    directory = Path(arguments.directory).absolute()
    return {"up": up, "load": load, "break": broken, "status": status, "down": down}[arguments.what](
        arguments, directory, terminal
    )


def up(arguments: argparse.Namespace, directory: Path, terminal: Terminal) -> int:
    """Make or start a site."""
    from kumodr.lab.opening import adopt_any
    from kumodr.lab.options import Options

    if arguments.restored:
        site = adopt_any(directory, Path(arguments.restored).absolute(), say=terminal.note)
    elif is_there(directory):
        site = open_any(directory)
    else:
        options = Options(
            kind=arguments.kind,
            kumod=arguments.kumod,
            retry_interval=arguments.retry_interval,
            max_age=arguments.max_age,
            write_buffer_size=arguments.write_buffer_size,
            seed=arguments.seed,
            kumod_image=arguments.kumod_image,
            sidecar=not arguments.bare,
        )
        site = _created(arguments.runtime, directory, options, arguments.vault, terminal)
    terminal.note("starting " + ", ".join(site.names()))
    site.start()
    lines = [f"a lab site runs in {directory}", f"  mail in    {site.smtp}    HTTP {site.http}", "try:"]
    terminal.result(described(site), [*lines, *_ideas(site)])
    return errors.DONE


def _created(runtime: str, directory: Path, options: "Options", vault: str | None, terminal: Terminal) -> AnySite:
    """Lay a new site out. Raise UsageWrong where an option belongs to the other runtime."""
    if runtime == "compose":
        from kumodr.lab.compose.layout import create_compose

        if options.kumod:
            raise errors.UsageWrong("--kumod is for a lab of processes", remedy="give --kumod-image NAME")
        return create_compose(directory, options, vault=vault, say=terminal.note)
    from kumodr.lab.site import create

    if options.kumod_image or not options.sidecar:
        raise errors.UsageWrong("--kumod-image and --bare are for containers", remedy="add --runtime compose")
    return create(directory, options, vault=vault)


def _ideas(site: AnySite) -> list[str]:
    """Return what to try next."""
    from kumodr.lab.compose.site import ComposeSite

    load = "  kumodr lab load --rate 100 --count 1000"
    if not isinstance(site, ComposeSite):
        init = "  kumodr vault init --identity-out ~/kumodr-lab-identity.txt"
        return [f"  cd {site.directory}", init, load, "  kumodr backup"]
    if not site.options.sidecar:
        return [
            f"  cd {site.directory}",
            load,
            f"  cd {site.root}    an ordinary compose project, which nobody protects",
        ]
    return [
        f"  cd {site.directory}",
        load,
        f"  (cd {site.root} && docker-compose exec kumodr kumodr status)",
        f"  kumodr restore --vault {site.directory}/vault --identity keys/identity.txt --to restored",
    ]


def load(arguments: argparse.Namespace, directory: Path, terminal: Terminal) -> int:
    """Send mail."""
    from kumodr.lab.load import Load, run_load

    site = open_any(directory)
    if arguments.count <= 0:
        raise errors.UsageWrong("--count must be at least 1: a load ends by itself")
    number = len(list(site.world.glob("load*.jsonl")))
    terminal.note(f"sending {arguments.count} messages to {site.smtp}")
    report = asyncio.run(
        run_load(
            Load(
                to=site.smtp,
                record=site.world / f"load-{number}.jsonl",
                rate=arguments.rate,
                count=arguments.count,
                size=arguments.size,
                connections=arguments.connections,
                deferred=arguments.deferred,
                refused=arguments.refused,
                seed=arguments.seed,
                name=f"L{number}-",
            )
        )
    )
    text = f"{report.acknowledged} acknowledged, {report.refused} refused, {report.broken_off} broken off"
    terminal.result(asdict(report), [f"{text}, in {report.seconds:.1f} s: {report.rate:.0f} a second"])
    return errors.DONE


def broken(arguments: argparse.Namespace, directory: Path, terminal: Terminal) -> int:
    """Break something."""
    from kumodr.lab.faults import break_site

    sentence = break_site(open_any(directory), arguments.fault, arguments.seed)
    terminal.result({"fault": arguments.fault, "seed": arguments.seed, "did": sentence}, [sentence])
    return errors.DONE


def status(_arguments: argparse.Namespace, directory: Path, terminal: Terminal) -> int:
    """Say what runs."""
    site = open_any(directory)
    document = described(site)
    lines = [
        f"{name:<11} {'runs, process ' + str(site.pid(name)) if site.running(name) else 'stopped'}"
        for name in site.names()
    ]
    mail = document["mail"]
    lines.append(
        f"mail        {mail['acknowledged']} acknowledged, {mail['delivered']} delivered, {mail['twice']} twice"
    )
    terminal.result(document, lines)
    return errors.DONE


def down(arguments: argparse.Namespace, directory: Path, terminal: Terminal) -> int:
    """Stop everything; where the site was wiped, the sink is all that is left."""
    from kumodr.lab.compose.site import ComposeSite
    from kumodr.lab.opening import stop_any_world

    if (directory / "site").exists():
        site = open_any(directory)
        if isinstance(site, ComposeSite):
            site.down(remove=arguments.remove)
        else:
            site.stop()
        names = list(site.names())
    else:
        stop_any_world(directory)
        names = ["sink"]
    if arguments.remove:
        for name in ("site", "world"):
            shutil.rmtree(directory / name, ignore_errors=True)
        (directory / "kumodr.yaml").unlink(missing_ok=True)
        if not any(directory.iterdir()):
            directory.rmdir()
    text = "stopped, and removed (a vault in it stays)" if arguments.remove else "stopped"
    terminal.result({"stopped": names, "removed": arguments.remove}, [text])
    return errors.DONE


def described(site: AnySite) -> dict[str, dict[str, object]]:
    """Return the JSON facts of a site."""
    from kumodr.lab.account import account, sent, taken

    sums = account(sent(site.world), taken(site.world))
    return {
        "site": {
            "directory": str(site.directory),
            "plan": str(site.plan),
            "kind": site.options.kind,
        },
        "addresses": {"smtp": site.smtp, "http": site.http, "sink": site.sink},
        "processes": {name: site.pid(name) for name in site.names()},
        "mail": {
            "acknowledged": sums.acknowledged,
            "delivered": sums.delivered,
            "missing": len(sums.missing),
            "twice": len(sums.duplicates),
        },
    }
