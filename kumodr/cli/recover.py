"""`kumodr recover`: the scenarios of a disaster, each one command that survives its own death."""

import argparse
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors
from kumodr.cli.options import add_identity_option, identities_of, time_wanted, vault_of
from kumodr.cli.running import add_run_options
from kumodr.cli.terminal import Terminal, age_text
from kumodr.clock import system_clock, text_of_time

if TYPE_CHECKING:
    from kumodr.cli.running import Finished


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True, metavar="SCENARIO")
    text = "after a complete system failure: the newest state comes back, vetted, reconciled, started and proved"
    system: Any = tasks.add_parser("system", help=text, description=text, allow_abbrev=False)
    system.set_defaults(act=_system)
    system.add_argument("--plan", metavar="FILE", default=argparse.SUPPRESS, help="the plan (default: the nearest)")
    system.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    system.add_argument("--at", metavar="TIME", help="the newest state not after this time: '2026-11-23 14:03', or -5m")
    system.add_argument("--disaster", metavar="TIME", help="when it happened (default: the last record of mail)")
    system.add_argument(
        "--uncertain", choices=("send", "hold", "drop"), default="send",
        help="messages that may have been sent already (default: send)",
    )  # fmt: skip
    system.add_argument("--max-age", metavar="AGE", default="7d", help="the policy's max_age (default 7d)")
    system.add_argument("--retry-interval", metavar="AGE", default="20m", help="the policy's shortest (default 20m)")
    system.add_argument("--vault", metavar="URL", help="on a machine where nothing is left: the vault; needs --to")
    system.add_argument("--to", metavar="DIR", help="with --vault: where kumodr's plan and state go, from the vault")
    add_identity_option(system)
    add_run_options(system)
    parser.epilog = (
        "example:\n  kumodr recover system --identity /media/usb/kumodr-identity.txt --dry-run\n"
        "  kumodr recover system --identity /media/usb/kumodr-identity.txt\n"
        "  kumodr recover system --vault /mnt/vault --identity key.txt --to /var/lib/kumodr   on an empty machine\n"
        "  kumodr recover system --at '2026-11-23 14:03:07' --pause-before place --yes\n"
        "  kumodr runs resume    after it was killed, interrupted or stopped"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    return arguments.act(arguments, terminal)


def _system(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if (arguments.vault is None) != (arguments.to is None):
        raise errors.UsageWrong("--vault and --to go together", remedy="give both on a machine where nothing is left")
    identities_of(arguments)  # that there is one is known before anything is begun
    with _plan_file(arguments, terminal) as plan_file:
        return _on(plan_file, arguments, terminal)


@contextmanager
def _plan_file(arguments: argparse.Namespace, terminal: Terminal) -> Generator[Path]:
    """Give the plan: the one that is named, the nearest, or the one from the vault, put into --to."""
    from kumodr.plan.load import NAME, nearest

    if arguments.to is None:
        yield Path(arguments.plan).absolute() if arguments.plan else nearest(Path.cwd())
        return
    from kumodr.durable import write_file
    from kumodr.recover.system.bare import plan_for

    directory = Path(arguments.to).absolute()
    file = directory / NAME
    if file.is_file():
        terminal.note(f"the plan is {file}, as an earlier try left it")
        yield file
        return
    if directory.exists() and any(directory.iterdir()):
        raise errors.TargetNotEmpty(f"{directory} is not empty, and holds no {NAME}")
    text = plan_for(vault_of(arguments, None), arguments.vault, identities_of(arguments), directory, terminal.progress)
    terminal.clear()
    if arguments.dry_run:
        with tempfile.TemporaryDirectory(prefix="kumodr-plan-") as folder:
            Path(folder, NAME).write_bytes(text)
            yield Path(folder, NAME)
        return
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_file(file, text)
    terminal.note(f"the plan from the vault is {file}; `kumodr runs resume` is to be given there")
    yield file


def _on(plan_file: Path, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.cli.running import asks_are_possible, carried_out, opening_of, rehearse, report
    from kumodr.cli.spool import age_of
    from kumodr.recover.system.runbook import NAME
    from kumodr.recover.system.scene import Scene, Wanted
    from kumodr.runbooks.registry import runbook_of
    from kumodr.runbooks.runs import begin, known_step, new_request
    from kumodr.runbooks.session import why_not_unattended
    from kumodr.runbooks.state import state_of

    at, disaster = (time_wanted(each, system_clock) for each in (arguments.at, arguments.disaster))
    wanted = Wanted(
        plan=str(plan_file),
        identity=str(Path(arguments.identity).absolute()) if arguments.identity else None,
        at=text_of_time(at) if at else None,
        disaster=text_of_time(disaster) if disaster else None,
        uncertain=arguments.uncertain,
        max_age=age_of(arguments.max_age).total_seconds(),
        retry_interval=age_of(arguments.retry_interval).total_seconds(),
    )
    plan = Scene(wanted.document()).plan
    runbook = runbook_of(NAME, wanted.document())
    known_step(runbook, arguments.pause_before, "--pause-before")
    if arguments.dry_run:
        return rehearse(runbook, None, terminal)
    refusal = why_not_unattended(runbook, asks=asks_are_possible(), yes=arguments.yes)
    if refusal is not None:
        raise refusal
    state = state_of(plan)
    request = new_request(state, runbook, wanted.document(), start_at=None)
    finished = carried_out(
        request, runbook, arguments, terminal, opening_of(plan.vault, Path(plan.state), plan.site),
        lambda session, watch: begin(state, runbook, request, session, watch),
    )  # fmt: skip
    return report(finished, request, terminal, proof_table(finished, terminal))


def proof_table(finished: "Finished | errors.RunStopped", terminal: Terminal) -> list[str]:
    """Given a run that ended, return what was proved, as a table."""
    if isinstance(finished, errors.RunStopped):
        return []
    facts: dict[str, Any] = {}
    for entry in finished.entries:
        facts |= entry.facts
    rows = [
        [
            row["objective"],
            {True: "met", False: "MISSED", None: "not known"}[row["met"]],
            age_text(row["measured"]) if row["measured"] is not None else "-",
            age_text(row["allowed"]),
            row["how"],
        ]
        for row in facts.get("objectives", [])
    ]
    names = ("expected", "finished", "uncertain", "lost", "perhaps_lost")
    counts = ", ".join(f"{facts[name]} {name.replace('_', ' ')}" for name in names if facts.get(name) is not None)
    kept = [
        "kept until you remove it (quarantine, lists, secrets, and what was there before):",
        *(f"  {each}" for each in facts.get("kept", [])),
    ]
    table = terminal.table(["OBJECTIVE", "", "MEASURED", "ALLOWED", "HOW"], rows, right=(2, 3))
    return [f"messages: {counts}", *table, *(kept if facts.get("kept") else [])]
