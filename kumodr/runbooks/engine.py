"""Go through a runbook's steps so that it may be broken off anywhere and gone through again.

Every part of a step (check, act, proof, decision …) runs as a durable part: `durably(name, part)` returns what the part
returned in an earlier session where it ended in one, and else runs it and records its result. A run that is resumed
goes through the same parts in the same order from the beginning, the recorded ones in no time, and goes on live where
the record ends. That holds because everything that decides the way is itself recorded: results, failures (as values,
not as exceptions) and decisions. Outside of a part neither the clock nor the world is looked at.

Between a part's effect and its record lies a moment in which the command may be killed. Then the part runs again.
Checks and proofs only read. An act is repeatable, or recognised by its check; but that check stands on record as "not
so", so in front of an act that runs in a later session than its check, the check is asked anew, under a number of its
own. An act that promises neither has a `begin` recorded before it: where that is the last record, the act may have
happened or not, and a person decides.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.runbooks.alarm import TookTooLong, limited
from kumodr.runbooks.entry import Entry, Phase, Status, entry_of
from kumodr.runbooks.session import Session, Stopped, Watch
from kumodr.runbooks.step import Context, Outcome, Request, Runbook, Step, Words

Durably = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
Work = Callable[[Context], tuple[Status, Outcome]]
_LONGEST_TEXT = 4000


def go(runbook: Runbook, request: Request, session: Session, durably: Durably, watch: Watch) -> dict[str, Any]:
    """Given a runbook and what was asked, go through it to its end; return how it ended as JSON values.

    Raise Stopped where it cannot go on for now: the run then can be resumed.
    """
    return _Going(runbook, request, session, durably, watch).through()


class _Going:
    def __init__(self, runbook: Runbook, request: Request, session: Session, durably: Durably, watch: Watch) -> None:
        self._runbook, self._request, self._session = runbook, request, session
        self._durably, self._watch = durably, watch
        self._facts: dict[str, Any] = {}
        self._number = self._skipped = self._warnings = 0
        self._whole = Step(runbook.name, runbook.title, lambda _context: Outcome(""), Words(""))

    def through(self) -> dict[str, Any]:
        title = Outcome(self._runbook.title, {"request": self._request.document()})
        self._part(self._whole, "run", 1, lambda _context: ("begun", title), "run.begin")
        before = self._request.start_at is not None
        for step in self._runbook.steps:
            before = before and step.name != self._request.start_at
            if before:
                left_out = Outcome(f"the run was started with --from {self._request.start_at}")
                self._part(step, "skip", 1, lambda _context, left_out=left_out: ("skipped", left_out))
            else:
                self._step(step)
        imperfect = f", {self._warnings} warnings, {self._skipped} skipped" if self._warnings or self._skipped else ""
        ended = Outcome(f"every step is done{imperfect}")
        self._part(self._whole, "run", 1, lambda _context: ("ended", ended), "run.end")
        return {"status": "done", "warnings": self._warnings, "skipped": self._skipped}

    def _step(self, step: Step) -> None:
        begun = any(name.startswith(f"{step.name}.") for name in self._session.recorded)
        if self._session.pause_before == step.name and not begun:
            raise Stopped("paused", step.name, f"paused before {step.name}, as was asked")
        attempt = 1
        while True:
            failed = self._attempt(step, attempt)
            if failed is None:
                return
            if self._after(step, attempt, failed) == "skip":
                self._skipped += 1
                return
            attempt += 1

    def _attempt(self, step: Step, attempt: int) -> Entry | None:
        """Do the step once; return the part that failed, None where all is well."""
        check = self._check(step, attempt, _name(step, "check", attempt))
        if check is not None and check.status == "failed":
            return check
        if check is None or check.status != "already":
            confirmed = self._confirmed(step)
            if confirmed is not None and confirmed.status == "failed":
                return confirmed
            if step.check is None and not step.repeatable:
                note = Outcome("from here on it may have happened")
                self._part(step, "begin", attempt, lambda _context: ("begun", note))
            found = self._found_again(step, attempt)
            if found is not None and found.status == "failed":
                return found
            if found is None:
                act = self._part(step, "act", attempt, lambda context: ("done", step.act(context)))
                if act.status == "failed":
                    return act
            elif found.status == "skip":
                self._skipped += 1
                return None
        if step.proof is None:
            return None
        prove = step.proof
        proof = self._part(step, "proof", attempt, lambda context: ("done", prove(context)))
        return proof if proof.status == "failed" else None

    def _check(self, step: Step, attempt: int, name: str) -> Entry | None:
        if step.check is None:
            return None
        ask = step.check

        def look(context: Context) -> tuple[Status, Outcome]:
            found = ask(context)
            return ("open", Outcome("it is not so yet")) if found is None else ("already", found)

        return self._part(step, "check", attempt, look, name)

    def _confirmed(self, step: Step) -> Entry | None:
        """Have the step confirmed where it asks; return the record. Raise Stopped where the answer is no."""
        if step.asks is None:
            return None
        asks = step.asks

        def confirm(context: Context) -> tuple[Status, Outcome]:
            question = asks(context)
            if self._session.yes:
                return "yes", Outcome(f"{question} yes, by --yes")
            if self._choice(step, question, ("yes", "no")) == "no":
                raise Stopped("declined", step.name, f"{question} no, by {self._session.by}")
            return "yes", Outcome(f"{question} yes")

        return self._part(step, "confirm", 1, confirm)

    def _found_again(self, step: Step, attempt: int) -> Entry | None:
        """Where the act may have happened in an earlier session, return what says that it is not to be done now.

        None: it is to be done, or its end is on record.
        """
        recorded, act = self._session.recorded, _name(step, "act", attempt)
        first = _name(step, "check" if step.check is not None else "begin", attempt)
        number = 0
        while True:
            number += 1
            name = _name(step, "again", attempt, number)
            if name not in recorded and (first not in recorded or act in recorded):
                return None
            if step.check is not None:
                entry = self._check(step, attempt, name)
            elif not step.repeatable:
                text = f"{step.name} was broken off in its middle, and may have happened. Do it again?"
                entry = self._decision(step, attempt, name, text, self._session.after_failure)
            else:
                return None
            if entry is not None and entry.status in ("already", "skip", "failed"):
                return entry
            if name not in recorded:
                return None

    def _after(self, step: Step, attempt: int, failed: Entry) -> Status:
        """Given the part that failed, return what is done about it, "again" or "skip". Raise Stopped."""
        recorded, name = self._session.recorded, _name(step, "decision", attempt)
        was_before = failed.session != self._session.began
        if step.on_failure == "undo" and step.undo is not None:
            undo = step.undo
            self._part(step, "undo", attempt, lambda context: ("done", undo(context)))
        if name in recorded:
            return self._decision(step, attempt, name, "", None).status
        if was_before:
            return self._decision(step, attempt, name, failed.text, self._session.after_failure or "again").status
        if step.on_failure == "retry" and attempt < step.attempts:
            self._session.pause(min(30.0, 2.0 ** (attempt - 1)))
            return self._decision(step, attempt, name, failed.text, "again", by="the runbook").status
        if step.on_failure == "ask" and self._session.question is not None:
            text = f"{step.name} failed: {failed.text} What now?"
            return self._decision(step, attempt, name, text, None).status
        raise Stopped("failed", step.name, failed.text)

    def _decision(
        self, step: Step, attempt: int, name: str, text: str, given: str | None, *, by: str | None = None
    ) -> Entry:
        """Record what is done about a step that did not end well: `given`, else what a person says. Raise Stopped."""

        def decide(_context: Context) -> tuple[Status, Outcome]:
            choice = given or self._choice(step, text, ("again", "skip", "stop"))
            if choice == "stop":
                raise Stopped("failed", step.name, text)
            return ("skip" if choice == "skip" else "again"), Outcome(choice)

        return self._part(step, "decision", attempt, decide, name, by=by)

    def _choice(self, step: Step, text: str, choices: tuple[str, ...]) -> str:
        if self._session.question is None:
            raise Stopped("failed", step.name, f"{text} There is no terminal to ask at")
        return self._session.question(text, choices)

    def _part(
        self, step: Step, phase: Phase, attempt: int, work: Work, name: str | None = None, *, by: str | None = None
    ) -> Entry:
        """Run one part durably and return its entry; what goes wrong in it is a result too. Raise Stopped."""
        self._number += 1
        number, name = self._number, name or _name(step, phase, attempt)

        def live() -> dict[str, Any]:
            try:
                self._session.still()
            except errors.KumodrError as error:
                raise Stopped("failed", step.name, str(error)) from error
            self._watch.begins(step, phase, attempt)
            began, start = self._session.clock(), monotonic()
            status, outcome = self._worked(step, phase, work)
            seconds = monotonic() - start
            return Entry(
                number=number, step=step.name, phase=phase, attempt=attempt, status=status,
                text=bounded(outcome.text), began=text_of_time(began), seconds=round(seconds, 3),
                by=by or self._session.by, session=self._session.began, facts=dict(outcome.facts),
                warnings=tuple(bounded(each) for each in outcome.warnings), over_budget=seconds > step.budget,
            ).document()  # fmt: skip

        entry = entry_of(self._durably(name, live))
        self._facts |= {key: value for key, value in entry.facts.items() if key != "request"}
        self._warnings += len(entry.warnings)
        self._watch.ended(entry, replayed=name in self._session.recorded)
        return entry

    def _worked(self, step: Step, phase: Phase, work: Work) -> tuple[Status, Outcome]:
        timed = phase in ("check", "act", "proof", "undo")
        longest = step.longest if timed else 10 * 86400.0
        try:
            with limited(longest) as left:
                session = self._session
                return work(
                    Context(
                        self._request.run, self._facts, session.clock, session.runner, left, session.pause,
                        self._watch.say, self._watch.progress,
                    )
                )  # fmt: skip
        except TookTooLong:
            return "failed", Outcome(f"it was broken off after {longest:g} s, which is the longest that it may take")
        except errors.StepFailed as error:
            return "failed", Outcome(error.what)
        except errors.KumodrError as error:
            return "failed", Outcome(str(error))
        except Exception as bug:  # noqa: BLE001 — a bug in a step stops the run where it is, and does not lose it
            from kumodr.cli.terminal import write_trace

            return "failed", Outcome(f"kumodr has a bug: {bug!r}; please report it with {write_trace()}")


def _name(step: Step, phase: str, attempt: int, number: int | None = None) -> str:
    return f"{step.name}.{phase}.{attempt}" + ("" if number is None else f".{number}")


def bounded(text: str) -> str:
    """Given text from anywhere, return it without what a terminal would obey, its end where it is long."""
    plain = "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)
    return plain if len(plain) <= _LONGEST_TEXT else "… " + plain[-_LONGEST_TEXT:]
