"""One command that works on a run: who gave it, what it may decide, and what the run had recorded before it."""

import getpass
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import sleep
from typing import Literal, Protocol

from kumodr import errors
from kumodr.clock import Clock, system_clock, text_of_time
from kumodr.runbooks.entry import Entry, Phase
from kumodr.runbooks.step import Runbook, Step
from kumodr.runtimes.commands import Runner, run

Question = Callable[[str, Sequence[str]], str]
"""Puts a question with its possible answers to a person and returns one of them."""


class Stopped(BaseException):
    """The run ends here for now and can be resumed. Nothing is recorded of it: it is as if the command had died.

    Not an `Exception`, so that neither a step nor the engine's database takes it for a result.
    """

    def __init__(self, how: Literal["failed", "paused", "declined"], step: str, text: str) -> None:
        super().__init__(text)
        self.how, self.step, self.text = how, step, text


class Watch(Protocol):
    """Who looks on while a run goes on. Every call returns quickly and raises nothing."""

    def begins(self, step: Step, phase: Phase, attempt: int) -> None:
        """A part of a step begins now."""
        ...

    def ended(self, entry: Entry, *, replayed: bool) -> None:
        """A part ended, or, replayed, had ended in an earlier session."""
        ...

    def say(self, text: str) -> None:
        """A step says something that is no result."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Long work is so far."""
        ...


@dataclass(frozen=True)
class Session:
    """What the engine needs to know of the command. `recorded` are the names of parts that had ended before it.

    `question` is None where nobody can be asked; `yes` answers every confirmation. `after_failure` is what is done
    with a step that failed, or began and did not end, in an earlier session: None asks where it has to be asked.
    `still` raises where the site's lock was lost.
    """

    by: str
    began: str
    recorded: frozenset[str] = frozenset()
    question: Question | None = None
    yes: bool = False
    pause_before: str | None = None
    after_failure: Literal["again", "skip"] | None = None
    clock: Clock = system_clock
    runner: Runner = run
    pause: Callable[[float], None] = sleep
    still: Callable[[], None] = lambda: None


def person() -> str:
    """Return who gave this command: `user@host`."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def session_now(clock: Clock = system_clock) -> tuple[str, str]:
    """Return `by` and `began` of a session that begins now."""
    return person(), text_of_time(clock())


def why_not_unattended(runbook: Runbook, *, asks: bool, yes: bool) -> errors.KumodrError | None:
    """Given a runbook, whether a person can be asked, and `--yes`, return the refusal, or None."""
    if asks or yes:
        return None
    step = next((step for step in runbook.steps if step.asks is not None), None)
    if step is None:
        return None
    return errors.NobodyToAsk(f"step {step.name} of {runbook.name} asks before it acts, and there is no terminal")
