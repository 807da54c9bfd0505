"""A run as it is seen at the terminal: a live table there, plain lines elsewhere, nothing twice."""

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from kumodr.cli.terminal import Terminal, size_text
from kumodr.runbooks.entry import Entry, Phase
from kumodr.runbooks.step import Runbook, Step

_SHOWN = 160


class Onlooker(Protocol):
    """What shows a run, and puts questions in its midst."""

    def begins(self, step: Step, phase: Phase, attempt: int) -> None: ...
    def ended(self, entry: Entry, *, replayed: bool) -> None: ...
    def say(self, text: str) -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...
    def question(self, text: str, choices: Sequence[str]) -> str: ...
    def close(self) -> None: ...


@contextmanager
def onlooker(runbook: Runbook, run: str, terminal: Terminal) -> Generator[Onlooker]:
    """Given a runbook and the run, show it until the block ends."""
    look: Onlooker = LiveTable(runbook, run) if terminal.is_live else PlainLines(run, terminal)
    try:
        yield look
    finally:
        look.close()


class PlainLines:
    """One line on standard error for each part that ended."""

    def __init__(self, run: str, terminal: Terminal) -> None:
        self._terminal = terminal
        terminal.note(f"run {run}")

    def begins(self, step: Step, phase: Phase, attempt: int) -> None:
        """Nothing is said before there is something to say."""

    def ended(self, entry: Entry, *, replayed: bool) -> None:
        if not replayed and entry.phase != "run":
            over = " (over budget)" if entry.over_budget else ""
            self._terminal.note(
                f"{entry.step}: {entry.phase} {entry.status} after {entry.seconds:.1f} s{over}: {one_line(entry.text)}"
            )
            for warning in entry.warnings:
                self._terminal.note(f"{entry.step}: NOTE: {warning}")

    def say(self, text: str) -> None:
        self._terminal.note(text)

    def progress(self, what: str, done: int, total: int) -> None:
        self._terminal.progress(what, done, total)

    def question(self, text: str, choices: Sequence[str]) -> str:
        self._terminal.clear()
        return asked(text, choices)

    def close(self) -> None:
        self._terminal.clear()


class LiveTable:
    """The steps with how each stands, drawn anew a few times a second."""

    def __init__(self, runbook: Runbook, run: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._steps, self._run = runbook.steps, run
        self._standing: dict[str, tuple[str, str]] = {}
        self._spent: dict[str, float] = {}
        self._now: tuple[str, str, float] | None = None
        self._doing = ""
        self._live: Any = Live(
            get_renderable=self._table, console=Console(stderr=True), refresh_per_second=4, transient=False
        )
        self._live.start()

    def begins(self, step: Step, phase: Phase, attempt: int) -> None:
        self._now = (step.name, phase if attempt == 1 else f"{phase}, attempt {attempt}", time.monotonic())
        self._doing = ""

    def ended(self, entry: Entry, *, replayed: bool) -> None:
        self._now = None
        self._spent[entry.step] = self._spent.get(entry.step, 0.0) + entry.seconds
        if entry.status != "begun":
            self._standing[entry.step] = (entry.status, one_line(entry.text))
        if not replayed:
            for warning in entry.warnings:
                self._live.console.print(f"{entry.step}: NOTE: {warning}", markup=False, highlight=False)

    def say(self, text: str) -> None:
        self._doing = one_line(text)

    def progress(self, what: str, done: int, total: int) -> None:
        share = f" {100 * done // total}%" if total else ""
        self._doing = f"{what}{share} ({size_text(done)})"

    def question(self, text: str, choices: Sequence[str]) -> str:
        self._live.stop()
        try:
            return asked(text, choices)
        finally:
            self._live.start()

    def close(self) -> None:
        self._live.stop()

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, title=f"run {self._run}", title_justify="left")
        for head in ("STEP", ""):
            table.add_column(head, no_wrap=True)
        for head in ("TIME", "BUDGET"):
            table.add_column(head, no_wrap=True, justify="right")
        table.add_column("", overflow="ellipsis", no_wrap=True)
        now = self._now
        for step in self._steps:
            state, text = self._standing.get(step.name, ("", step.purpose))
            spent = self._spent.get(step.name, 0.0)
            style = {"failed": "red", "done": "green", "already": "green"}.get(state, "")
            if now is not None and now[0] == step.name:
                state, style = now[1], "bold"
                spent += time.monotonic() - now[2]
                text = self._doing or step.purpose
            over = "red" if spent > step.budget else ""
            shown = f"{spent:.1f} s" if spent else ""
            table.add_row(step.name, Text(state, style), Text(shown, over), f"{step.budget:g} s", Text(text))
        return table


def asked(text: str, choices: Sequence[str]) -> str:
    """Put a question to the person at the terminal until the answer is one of the choices; no more input means the
    last one, which is the careful one.
    """
    letters = {choice[0]: choice for choice in choices}
    while True:
        sys.stderr.write(f"{text} [{'/'.join(choices)}] ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return choices[-1]
        word = line.strip().lower()
        if word in choices or (len(letters) == len(choices) and word in letters):
            return letters.get(word, word)


def one_line(text: str) -> str:
    """Given text, return its last line that says something, cut to what fits on a line."""
    line = next((each.strip() for each in reversed(text.splitlines()) if each.strip()), "")
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
