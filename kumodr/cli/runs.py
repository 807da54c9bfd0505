"""`kumodr runs`: procedures that survive the death of the command that runs them."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors
from kumodr.cli.options import add_identity_option, add_vault_option, identities_of, where_of
from kumodr.cli.terminal import Terminal

if TYPE_CHECKING:
    from kumodr.plan.model import Plan, VaultPlan
    from kumodr.runbooks.entry import Entry
    from kumodr.runbooks.runs import Run
    from kumodr.runbooks.state import State

_EXAMPLE = """example:
  kumodr runs list
  kumodr runs list --vault /mnt/vault    what the vault has, without the host that ran them
  kumodr runs show maintenance-20261124-031500-a1b2
  kumodr runs start maintenance.yaml --dry-run
  kumodr runs start maintenance.yaml
  kumodr runs resume
  kumodr runs abort maintenance-20261124-031500-a1b2
  kumodr runs sample > maintenance.yaml
  kumodr runs schema > schema.json"""

_ENDS = {"ended": "done", "aborted": "aborted"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from kumodr.cli.running import add_run_options

    parser.epilog = _EXAMPLE
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    listing = _task(tasks, "list", _list, "list the runs of this site, or those in a vault")
    add_vault_option(listing)
    show = _task(tasks, "show", _show, "show the timeline of a run")
    show.add_argument("run", metavar="RUN", nargs="?", help="default: the newest")
    add_vault_option(show)
    add_identity_option(show)
    start = _task(tasks, "start", _start, "run a runbook of your own")
    start.add_argument("file", metavar="FILE", help="its YAML; `kumodr runs sample` prints one")
    add_run_options(start, start_at=True)
    resume = _task(tasks, "resume", _resume, "go on with a run that was killed, interrupted, paused or stopped")
    resume.add_argument("run", metavar="RUN", nargs="?", help="default: the newest that is unfinished")
    add_run_options(resume, new=False)
    after = resume.add_mutually_exclusive_group()
    after.add_argument("--again", action="store_true", help="do the step again that was broken off or failed")
    after.add_argument("--skip", action="store_true", help="leave that step, as it is, and go on behind it")
    abort = _task(tasks, "abort", _abort, "give a run up: it can not be resumed; what it did stays")
    abort.add_argument("run", metavar="RUN")
    _task(tasks, "sample", _sample, "print a runbook to begin with")
    _task(tasks, "schema", _schema, "print the JSON Schema of a runbook")


def _task(
    tasks: Any, name: str, act: Callable[[argparse.Namespace, Terminal], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = tasks.add_parser(
        name, help=summary, description=summary, allow_abbrev=False, epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(act=act)
    parser.add_argument("--plan", metavar="FILE", default=argparse.SUPPRESS, help="the plan (default: the nearest)")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    return parser


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    return arguments.act(arguments, terminal)


def _of_plan(arguments: argparse.Namespace) -> "tuple[Plan, State]":
    from kumodr.plan.load import load_plan
    from kumodr.runbooks.state import state_of

    plan = load_plan(arguments.plan)
    return plan, state_of(plan)


def _start(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.cli.running import asks_are_possible, carried_out, opening_of, rehearse, report
    from kumodr.plan.load import nearest
    from kumodr.runbooks.registry import WRITTEN, runbook_of
    from kumodr.runbooks.runs import begin, known_step, new_request
    from kumodr.runbooks.session import why_not_unattended
    from kumodr.runbooks.written.read import read_runbook

    file = Path(arguments.file).absolute()
    document = read_runbook(file)
    plan, state = _of_plan(arguments)
    named = Path(arguments.plan).absolute() if arguments.plan else nearest(Path.cwd())
    parameters: Mapping[str, Any] = {WRITTEN: document, "directory": str(file.parent), "plan": str(named)}
    runbook = runbook_of(document["name"], parameters)
    known_step(runbook, arguments.start_at, "--from")
    known_step(runbook, arguments.pause_before, "--pause-before")
    if arguments.dry_run:
        return rehearse(runbook, arguments.start_at, terminal)
    refusal = why_not_unattended(runbook, asks=asks_are_possible(), yes=arguments.yes)
    if refusal is not None:
        raise refusal
    request = new_request(state, runbook, parameters, start_at=arguments.start_at)
    opening = opening_of(plan.vault, Path(plan.state), plan.site)
    finished = carried_out(
        request, runbook, arguments, terminal, opening,
        lambda session, watch: begin(state, runbook, request, session, watch),
    )  # fmt: skip
    return report(finished, request, terminal, [])


def _resume(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.cli.running import asks_are_possible, carried_out, opening_of, report
    from kumodr.runbooks.registry import runbook_of
    from kumodr.runbooks.runs import resumable, resume
    from kumodr.runbooks.session import why_not_unattended

    plan, state = _of_plan(arguments)
    found = resumable(state, arguments.run)
    request = found.request
    runbook = runbook_of(request.runbook, request.parameters)
    refusal = why_not_unattended(runbook, asks=asks_are_possible(), yes=arguments.yes)
    if refusal is not None and _asks_yet(found):
        raise refusal
    opening = opening_of(plan.vault, Path(plan.state), plan.site)
    finished = carried_out(
        request, runbook, arguments, terminal, opening, lambda session, watch: resume(state, found, session, watch),
        "again" if arguments.again else "skip" if arguments.skip else None,
    )  # fmt: skip
    return report(finished, request, terminal, [])


def _asks_yet(found: "Run") -> bool:
    """Whether a question of the run is still to be answered."""
    from kumodr.runbooks.registry import runbook_of

    runbook = runbook_of(found.request.runbook, found.request.parameters)
    answered = {entry.step for entry in found.entries if entry.status in ("yes", "skip", "skipped", "already")}
    return any(step.asks is not None and step.name not in answered for step in runbook.steps)


def _abort(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.cli.running import opening_of, recorded_alone
    from kumodr.runbooks.runs import abort, one

    plan, state = _of_plan(arguments)
    found = one(state, arguments.run)
    entry = abort(state, found)
    problem = recorded_alone(opening_of(plan.vault, Path(plan.state), plan.site), arguments.run, entry)
    done = sorted({each.step for each in found.entries if each.phase == "act" and each.status == "done"})
    text = f"; done, and left as it is: {', '.join(done)}" if done else "; no step of it was done"
    document = {"run": arguments.run, "standing": "aborted", "done": done, "record_problem": problem}
    terminal.result(document, [f"{arguments.run} is given up{text}"])
    return errors.IMPERFECT if problem else errors.DONE


def _sample(_arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.runbooks.written.model import SAMPLE

    terminal.result({"sample": SAMPLE}, [SAMPLE.rstrip()])
    return errors.DONE


def _schema(_arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.runbooks.written.model import json_schema

    document = json_schema()
    terminal.result(document, [json.dumps(document, indent=2)])
    return errors.DONE


def _list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.vault:
        rows = _in_vault(where_of(arguments, None))
    else:
        from kumodr.runbooks.runs import listed

        rows = [_summary(run) for run in listed(_of_plan(arguments)[1])]
    heads = ["RUN", "STANDING", "STARTED", "LAST", ""]
    table = [[row["run"], row["standing"], row["started"][:19] + "Z", row["step"], row["text"]] for row in rows]
    terminal.result({"runs": rows}, terminal.table(heads, table) if rows else ["there is no run"])
    return errors.DONE


def _summary(run: "Run") -> dict[str, Any]:
    from kumodr.cli.run_watch import one_line

    last = run.last
    return {
        "run": run.request.run,
        "runbook": run.request.runbook,
        "site": run.request.site,
        "standing": run.standing,
        "started": run.request.started,
        "by": run.request.by,
        "step": last.step if last else "",
        "status": last.status if last else "",
        "text": one_line(last.text) if last else "",
    }


def _in_vault(where: "VaultPlan") -> list[dict[str, Any]]:
    """Return what the vault tells of runs without a key, the newest first."""
    from kumodr.runbooks.record import heads
    from kumodr.vault.open import open_vault

    found: dict[str, dict[str, Any]] = {}
    for head in heads(open_vault(where), {}):
        first = found.get(head.run, {"started": head.began, "runbook": head.step})
        found[head.run] = first | {
            "run": head.run,
            "site": head.site,
            "standing": _ENDS.get(head.status, "unfinished"),
            "by": None,
            "step": head.step,
            "status": head.status,
            "text": "" if head.distrust is None else f"NOT TRUSTED: {head.distrust.what}",
        }
    return sorted(found.values(), key=lambda row: row["started"], reverse=True)


def _show(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.vault:
        if arguments.run is None:
            raise errors.UsageWrong("no run is named", remedy="`kumodr runs list --vault URL` shows them")
        document, entries = _from_vault(arguments)
    else:
        from kumodr.runbooks.runs import listed, one

        _, state = _of_plan(arguments)
        found = one(state, arguments.run) if arguments.run else next(iter(listed(state)), None)
        if found is None:
            raise errors.RunMissing(
                f"there is no run of {state.site} yet", remedy="`kumodr runs start FILE` begins one"
            )
        document, entries = _summary(found), found.entries
    lines = [f"{document['run']}: {document['standing']}, started {document['started'][:19]}Z by {document['by']}"]
    terminal.result(
        document | {"entries": [entry.document() for entry in entries]}, [*lines, *_timeline(entries, terminal)]
    )
    return errors.DONE


def _from_vault(arguments: argparse.Namespace) -> "tuple[dict[str, Any], tuple[Entry, ...]]":
    from kumodr.cli.run_watch import one_line
    from kumodr.runbooks.record import entries
    from kumodr.vault.open import open_vault

    found = tuple(entries(open_vault(where_of(arguments, None)), identities_of(arguments), arguments.run))
    if not found:
        raise errors.RunMissing(f"the vault holds no run {arguments.run} whose signature counts")
    first, last = found[0], found[-1]
    request = first.facts.get("request", {})
    document = {
        "run": arguments.run,
        "runbook": first.step,
        "site": str(request.get("site", "")),
        "standing": _ENDS.get(last.status, "unfinished"),
        "started": str(request.get("started", first.began)),
        "by": first.by,
        "step": last.step,
        "status": last.status,
        "text": one_line(last.text),
    }
    return document, found


def _timeline(entries: "tuple[Entry, ...]", terminal: Terminal) -> list[str]:
    from kumodr.cli.run_watch import one_line

    rows = [
        [
            entry.began[11:19], entry.step, entry.phase, entry.status, f"{entry.seconds:.1f} s",
            entry.by, ("OVER BUDGET: " if entry.over_budget else "") + one_line(entry.text),
        ]
        for entry in entries
    ]  # fmt: skip
    return terminal.table(["BEGAN", "STEP", "PART", "", "TIME", "BY", ""], rows, right=(4,)) if rows else []
