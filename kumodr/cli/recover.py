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
    _add_common(system)
    system.add_argument("--vault", metavar="URL", help="on a machine where nothing is left: the vault; needs --to")
    system.add_argument("--to", metavar="DIR", help="with --vault: where kumodr's plan and state go, from the vault")
    text = "after corruption: what can be read of the damaged data, and of the vault's copy the rest, proved"
    data: Any = tasks.add_parser("data", help=text, description=text, allow_abbrev=False)
    data.set_defaults(act=_data)
    _add_common(data)
    data.add_argument(
        "--damaged", metavar="COMPONENT", action="append", choices=("spool", "redis", "prometheus"), default=[],
        help="take it for damaged whatever is found: spool, redis or prometheus; may be repeated",
    )  # fmt: skip
    parser.epilog = (
        "example:\n  kumodr recover system --identity /media/usb/kumodr-identity.txt --dry-run\n"
        "  kumodr recover system --identity /media/usb/kumodr-identity.txt\n"
        "  kumodr recover system --vault /mnt/vault --identity key.txt --to /var/lib/kumodr   on an empty machine\n"
        "  kumodr recover system --at '2026-11-23 14:03:07' --pause-before place --yes\n"
        "  kumodr recover data --identity key.txt --dry-run   diagnose, and say what would be done\n"
        "  kumodr recover data --identity key.txt\n"
        "  kumodr runs resume    after it was killed, interrupted or stopped"
    )


def _add_common(parser: Any) -> None:
    parser.add_argument("--plan", metavar="FILE", default=argparse.SUPPRESS, help="the plan (default: the nearest)")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    parser.add_argument("--at", metavar="TIME", help="the newest state not after this time: '2026-11-23 14:03', or -5m")
    parser.add_argument("--disaster", metavar="TIME", help="when it happened (default: the last record of mail)")
    parser.add_argument(
        "--uncertain", choices=("send", "hold", "drop"), default="send",
        help="messages that may have been sent already (default: send)",
    )  # fmt: skip
    parser.add_argument("--max-age", metavar="AGE", default="7d", help="the policy's max_age (default 7d)")
    parser.add_argument("--retry-interval", metavar="AGE", default="20m", help="the policy's shortest (default 20m)")
    add_identity_option(parser)
    add_run_options(parser)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    return arguments.act(arguments, terminal)


def _system(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if (arguments.vault is None) != (arguments.to is None):
        raise errors.UsageWrong("--vault and --to go together", remedy="give both on a machine where nothing is left")
    identities_of(arguments)  # that there is one is known before anything is begun
    with _plan_file(arguments, terminal) as plan_file:
        return _on("recover-system", plan_file, arguments, terminal)


def _data(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.plan.load import nearest

    identities_of(arguments)
    plan_file = Path(arguments.plan).absolute() if arguments.plan else nearest(Path.cwd())
    return _on("recover-data", plan_file, arguments, terminal)


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


def _on(name: str, plan_file: Path, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.cli.running import asks_are_possible, carried_out, opening_of, rehearse, report
    from kumodr.cli.spool import age_of
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
        damaged=getattr(arguments, "damaged", ()),
    )
    plan = Scene(wanted.document()).plan
    runbook = runbook_of(name, wanted.document())
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
    if "expected" not in facts:  # no spool was recovered: the last step before the end says what was
        return [line for entry in finished.entries[-2:-1] for line in entry.text.splitlines()]
    names = ("expected", "finished", "uncertain", "lost", "perhaps_lost")
    counts = ", ".join(f"{facts[name]} {name.replace('_', ' ')}" for name in names if facts.get(name) is not None)
    kept = [
        "kept until you remove it (quarantine, lists, secrets, and what was there before):",
        *(f"  {each}" for each in facts.get("kept", [])),
    ]
    table = terminal.table(["OBJECTIVE", "", "MEASURED", "ALLOWED", "HOW"], rows, right=(2, 3))
    return [f"messages: {counts}", *_saved(facts), *table, *(kept if facts.get("kept") else [])]


def _saved(facts: dict[str, Any]) -> list[str]:
    """Given the facts of a run that salvaged, return where the messages come from, and what another way would cost."""
    saved, usual = facts.get("saved"), facts.get("usual_way")
    if saved is None or usual is None:
        return []
    rest = f"going back to {usual['base']}" if usual["base"] else "no backup"
    origins = (
        f"{saved['from_spool']} from the damaged spool, {saved['from_copy']} from the vault, {saved['from_both']} with "
        f"a part from each"
    )
    return [
        f"saved: {origins}; {facts['unreadable_ranges']} ranges cannot be read: {facts['lists']}",
        f"removing the spool and {rest} would have lost {usual['would_have_lost']} messages",
    ]
