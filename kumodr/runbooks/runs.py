"""Begin a run, take it up again, give it up, and look at it: what the verbs call."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kumodr import errors
from kumodr.clock import Clock, system_clock, text_of_time
from kumodr.runbooks import database
from kumodr.runbooks.engine import Durably, go
from kumodr.runbooks.entry import Entry, entry_of
from kumodr.runbooks.lock import holder, site_locked
from kumodr.runbooks.registry import runbook_of
from kumodr.runbooks.session import Session, Stopped, Watch, person
from kumodr.runbooks.state import State
from kumodr.runbooks.step import Request, Runbook

Standing = Literal["running", "unfinished", "done", "aborted", "broken"]


@dataclass(frozen=True)
class Run:
    """A run as it stands. `unfinished`: nobody works on it, and it can be resumed."""

    request: Request
    standing: Standing
    entries: tuple[Entry, ...]

    @property
    def last(self) -> Entry | None:
        """The part that ended last."""
        return self.entries[-1] if self.entries else None


def new_request(
    state: State, runbook: Runbook, parameters: Mapping[str, Any], *, start_at: str | None, clock: Clock = system_clock
) -> Request:
    """Given what is to be run, return the request with a name of its own. Raise UsageWrong for an unknown step."""
    known_step(runbook, start_at, "--from")
    now = clock()
    run = f"{runbook.name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return Request(run, state.site, runbook.name, parameters, runbook.names(), text_of_time(now), person(), start_at)


def known_step(runbook: Runbook, step: str | None, option: str) -> None:
    """Given the step that an option names, raise UsageWrong where the runbook has none of that name."""
    if step is not None and step not in runbook.names():
        raise errors.UsageWrong(
            f"{option} {step}: {runbook.name} has no such step", remedy=f"choose from: {', '.join(runbook.names())}"
        )


def begin(state: State, runbook: Runbook, request: Request, session: Session, watch: Watch) -> dict[str, Any]:
    """Given a new request, go through its runbook; return how it ended. Raise AnotherRun, Stopped."""
    with site_locked(state, request.run) as still:
        session = replace(session, still=still)

        def body(_asked: Mapping[str, Any], durably: Durably) -> dict[str, Any]:
            return go(runbook, request, session, durably, watch)

        return database.execute(state, request.run, request.document(), body)


def resume(state: State, run: Run, session: Session, watch: Watch) -> dict[str, Any]:
    """Given a run that is unfinished, go on with it; return how it ended. Raise AnotherRun, RunChanged, Stopped."""
    request = run.request
    runbook = runbook_of(request.runbook, request.parameters)
    if runbook.names() != list(request.steps):
        raise errors.RunChanged(f"{request.run} was begun with other steps than {request.runbook} has now")
    known_step(runbook, session.pause_before, "--pause-before")
    with site_locked(state, request.run) as still:
        parts = database.recorded(state, request.run)[0].parts
        session = replace(session, still=still, recorded=frozenset(parts))

        def body(_asked: Mapping[str, Any], durably: Durably) -> dict[str, Any]:
            return go(runbook, request, session, durably, watch)

        return database.execute(state, request.run, None, body)


def resumable(state: State, name: str | None) -> Run:
    """Given a run's name (None: the newest unfinished), return it where it may be resumed.

    A run after which another one began on the site is not: what it would go on with may have been done or undone.
    Raise RunMissing, RunOver, AnotherRun.
    """
    found = listed(state)
    if name is None:
        run = next((each for each in found if each.standing in ("running", "unfinished")), None)
        if run is None:
            raise errors.RunMissing(f"no run of {state.site} is unfinished", remedy="`kumodr runs list` shows all")
    else:
        run = one(state, name)
    if run.standing == "running":
        raise errors.AnotherRun(
            f"{run.request.run} is at work on {state.site}", remedy="wait for it to end, or interrupt it"
        )
    if run.standing != "unfinished":
        raise errors.RunOver(f"{run.request.run} is {run.standing}")
    newer = [each for each in found if each.request.started > run.request.started and each.standing != "aborted"]
    if newer:
        raise errors.RunOver(
            f"after {run.request.run} the run {newer[0].request.run} began on {state.site}",
            remedy=f"give it up with `kumodr runs abort {run.request.run}`, and begin a new one where it is needed",
        )
    return run


def abort(state: State, run: Run, clock: Clock = system_clock) -> Entry:
    """Given a run that nobody works on, give it up; return the entry that says so. What it did stays.

    Raise AnotherRun, RunOver.
    """
    if run.standing in ("done", "aborted"):
        raise errors.RunOver(f"{run.request.run} is {run.standing}")
    with site_locked(state, run.request.run):
        database.give_up(state, run.request.run)
    number, now = (run.last.number if run.last else 0) + 1, text_of_time(clock())
    text = f"given up by {person()}; what was done stays as it is"
    return Entry(number, run.request.runbook, "run", 1, "aborted", text, now, 0.0, person(), now)


def one(state: State, name: str) -> Run:
    """Given a run's name, return it. Raise RunMissing."""
    found = database.recorded(state, name)
    if not found:
        raise errors.RunMissing(f"there is no run {name} of {state.site}", remedy="`kumodr runs list` shows all")
    return _run(found[0], holder(state))


def listed(state: State) -> list[Run]:
    """Given the state, return the runs of its site, the newest first."""
    found = database.recorded(state)
    held = holder(state) if found else None
    runs = [_run(each, held) for each in found]
    return sorted(runs, key=lambda run: run.request.started, reverse=True)


def _run(found: database.Recorded, held: str | None) -> Run:
    request = Request(**found.request)
    entries = sorted((entry_of(part) for part in found.parts.values()), key=lambda entry: entry.number)
    standing: Any = found.ended or ("running" if held == found.run else "unfinished")
    return Run(request, standing, tuple(entries))


def said(stopped: Stopped, run: str) -> errors.RunStopped:
    """Given why a run stopped, return the error that says so and how to go on."""
    way = f"`kumodr runs resume {run}` goes on from there"
    if stopped.how == "failed":
        return errors.RunStopped(
            f"{run} stopped at {stopped.step}: {stopped.text.rstrip('.')}", remedy=f"see to that, then {way}"
        )
    return errors.RunStopped(f"{run}: {stopped.text}", remedy=way)
