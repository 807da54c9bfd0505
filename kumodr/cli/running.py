"""What the verbs that run runbooks share: their options, the person at the terminal, the record, the end."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.cli.run_watch import Onlooker, onlooker
from kumodr.cli.terminal import Terminal
from kumodr.clock import system_clock
from kumodr.plan.model import VaultPlan
from kumodr.runbooks.entry import Entry
from kumodr.runbooks.record import Recorder
from kumodr.runbooks.runs import said
from kumodr.runbooks.session import Session, Stopped, Watch, session_now
from kumodr.runbooks.step import Context, Outcome, Request, Runbook, Step
from kumodr.runtimes.commands import run as run_command
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import Vault

Opening = Callable[[], tuple[Vault, NodeKey]]
"""Opens the vault that the record goes to, with the key that signs it."""


def add_run_options(parser: argparse.ArgumentParser, *, new: bool = True, start_at: bool = False) -> None:
    """Given the parser of a verb that runs a runbook, add what all of them have; what begins one has a dry run."""
    parser.add_argument("--yes", action="store_true", help="answer every question with yes")
    parser.add_argument("--pause-before", metavar="STEP", help="stop before this step; `kumodr runs resume` goes on")
    if start_at:
        parser.add_argument("--from", dest="start_at", metavar="STEP", help="leave out the steps before this one")
    if new:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done and why, and do nothing")


@dataclass(frozen=True)
class Finished:
    """How a run ended: its entries, and why its record in the vault is not whole, if it is not."""

    request: Request
    result: dict[str, Any]
    entries: tuple[Entry, ...]
    unrecorded: str | None


def carried_out(
    request: Request,
    runbook: Runbook,
    arguments: argparse.Namespace,
    terminal: Terminal,
    opening: Opening | None,
    work: Callable[[Session, Watch], dict[str, Any]],
    after_failure: Any = None,
) -> Finished | errors.RunStopped:
    """Given a request and what works on it, let it, with a person or none, and the record going to the vault.

    Return how it ended, or, where it was paused as was asked, the sentence that says so. Raise RunStopped.
    """
    by, began = session_now()
    with onlooker(runbook, request.run, terminal) as look:
        question = look.question if asks_are_possible() else None
        session = Session(
            by, began, question=question, yes=arguments.yes, pause_before=arguments.pause_before,
            after_failure=after_failure,
        )  # fmt: skip
        watch = _Recording(look, opening, request.run)
        try:
            result = work(session, watch)
        except Stopped as stopped:
            unrecorded = watch.close()
            look.close()
            _note(unrecorded, terminal)
            if stopped.how == "paused":
                return said(stopped, request.run)
            raise said(stopped, request.run) from None
        except KeyboardInterrupt:
            watch.close(2.0)
            look.close()
            terminal.note(f"interrupted; `kumodr runs resume {request.run}` goes on from there")
            raise
        except BaseException:
            watch.close(2.0)
            raise
        return Finished(request, result, tuple(watch.entries), watch.close())


def asks_are_possible() -> bool:
    """Return whether a person sits at the terminal: both what is typed and what is shown."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class _Recording:
    """An onlooker whose entries go to the vault too."""

    def __init__(self, look: Onlooker, opening: Opening | None, run: str) -> None:
        self._look = look
        self.entries: list[Entry] = []
        self._problem: str | None = None
        self._recorder: Recorder | None = None
        if opening is not None:
            try:
                self._recorder = Recorder(*opening(), run)
            except errors.KumodrError as error:
                self._problem = str(error)

    def begins(self, step: Step, phase: Any, attempt: int) -> None:
        self._look.begins(step, phase, attempt)

    def ended(self, entry: Entry, *, replayed: bool) -> None:
        self.entries.append(entry)
        if self._recorder is not None:
            self._recorder.put(entry)
        self._look.ended(entry, replayed=replayed)

    def say(self, text: str) -> None:
        self._look.say(text)

    def progress(self, what: str, done: int, total: int) -> None:
        self._look.progress(what, done, total)

    def close(self, patience: float = 30.0) -> str | None:
        if self._recorder is None:
            return self._problem
        return self._recorder.close(patience)


def _note(unrecorded: str | None, terminal: Terminal) -> None:
    if unrecorded is not None:
        terminal.note(f"the record in the vault is not whole: {unrecorded}")


def report(finished: Finished | errors.RunStopped, request: Request, terminal: Terminal, lines: Sequence[str]) -> int:
    """Print how a run ended, `lines` behind it, and return the exit code."""
    if isinstance(finished, errors.RunStopped):
        terminal.result({"run": request.run, "standing": "unfinished", "message": str(finished)}, [str(finished)])
        return errors.IMPERFECT
    result, unrecorded = finished.result, finished.unrecorded
    document = {
        "run": request.run,
        "standing": "done",
        "warnings": [each for entry in finished.entries for each in entry.warnings],
        "skipped": result["skipped"],
        "record_problem": unrecorded,
        "entries": [entry.document() for entry in finished.entries],
    }
    _note(unrecorded, terminal)
    terminal.result(document, [f"{request.run}: every step is done", *lines])
    return errors.IMPERFECT if result["warnings"] or result["skipped"] or unrecorded else errors.DONE


def rehearse(runbook: Runbook, start_at: str | None, terminal: Terminal) -> int:
    """Say what a run would do and why, and do nothing; steps that only read are done, for what they find."""
    facts: dict[str, Any] = {}
    would: list[dict[str, Any]] = []
    skipping = start_at is not None
    for step in runbook.steps:
        skipping = skipping and step.name != start_at
        context = Context(
            "dry-run", facts, system_clock, run_command, lambda: 60.0, lambda _seconds: None, terminal.note,
            terminal.progress,
        )  # fmt: skip
        what = "left out" if skipping else _rehearsed(step, context, facts)
        would.append(
            {
                "step": step.name,
                "purpose": step.purpose,
                "would": what,
                "asks": step.asks is not None,
                "budget_seconds": step.budget,
                "on_failure": step.on_failure,
            }
        )
    lines = [f"{runbook.title}; nothing is done now:"]
    for number, each in enumerate(would, 1):
        lines += [f"{number:>3}. {each['step']}: {each['purpose']}", f"     {each['would']}"]
    terminal.result({"runbook": runbook.name, "title": runbook.title, "steps": would}, lines)
    return errors.DONE


def _rehearsed(step: Step, context: Context, facts: dict[str, Any]) -> str:
    if not step.reads:
        return step.preview(context) if step.preview is not None else f"would: {step.words.act}"
    try:
        outcome: Outcome = step.act(context)
    except errors.KumodrError as error:
        return f"would stop here: {error}"
    facts |= outcome.facts
    return outcome.text


def recorded_alone(opening: Opening, run: str, entry: Entry) -> str | None:
    """Put one entry into the vault's record; return why it could not be, or None."""
    try:
        recorder = Recorder(*opening(), run)
    except errors.KumodrError as error:
        return str(error)
    recorder.put(entry)
    return recorder.close()


def opening_of(where: VaultPlan, state: Path, site: str) -> Opening:
    """Given where the vault is, the state directory and the site, return what opens the record there."""

    def opened() -> tuple[Vault, NodeKey]:
        from kumodr.vault.open import open_vault

        return open_vault(where), NodeKey.load_or_create(state, site)

    return opened
