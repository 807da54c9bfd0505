"""A command that runs or resumes a run and is killed on the way: forked, so that nothing is imported again.

The kill is at the N-th part of a step, before its work or after it, which is before its record.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import dbos  # noqa: F401 — imported here once, so that no child has to

from kumodr.runbooks import engine
from kumodr.runbooks.entry import Entry
from kumodr.runbooks.runs import Run, begin, new_request, one, resume
from kumodr.runbooks.session import Session, Stopped, session_now
from kumodr.runbooks.state import State
from kumodr.runbooks.step import Runbook

Moment = Literal["before", "after"]


class Eyes:
    """An onlooker that keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[Entry, bool]] = []

    def begins(self, step: Any, phase: Any, attempt: int) -> None:
        return

    def ended(self, entry: Entry, *, replayed: bool) -> None:
        self.seen.append((entry, replayed))

    def say(self, text: str) -> None:
        return

    def progress(self, what: str, done: int, total: int) -> None:
        return


def session(**changes: Any) -> Session:
    by, began = session_now()
    return Session(by, began, **({"yes": True, "pause": lambda _seconds: None} | changes))


def start(state: State, runbook: Runbook, parameters: dict[str, Any], **changes: Any) -> str:
    """Begin a run and go through it; return its name. Raise Stopped."""
    request = new_request(state, runbook, parameters, start_at=changes.pop("start_at", None))
    begin(state, runbook, request, session(**changes), Eyes())
    return request.run


def go_on(state: State, run: Run | str, **changes: Any) -> Eyes:
    """Resume a run; return what was seen. Raise Stopped."""
    eyes = Eyes()
    resume(state, one(state, run) if isinstance(run, str) else run, session(**changes), eyes)
    return eyes


def in_child(work: Callable[[], object], errors_to: Path, kill_at: tuple[int | str, Moment] | None = None) -> int:
    """Do the work in a forked process that is killed where it is said; return its exit code, negative for a signal.

    It is killed at the N-th part, or at the act of the step that is named, or at its check where that says "already".

    5 stands for a run that stopped, 1 for anything else that was raised, with its trace in the file.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        if kill_at is not None:
            _arm(*kill_at)
        work()
        os._exit(0)
    except Stopped:
        os._exit(5)
    except BaseException:
        errors_to.write_text(traceback.format_exc())
        sys.stderr.flush()
        os._exit(1)


def command_in_child(
    words: list[str], errors_to: Path, kill_at: tuple[int | str, Moment] | None = None, prepared: str | None = None
) -> int:
    """Run a whole command in a new process, killed where it is said; return its exit code, negative for a signal.

    A command that uses RocksDB cannot run in a fork: the engine's threads are those of the process that was forked.
    `prepared` is a function, `module:name`, that is called before.
    """
    asked = json.dumps({"words": words, "kill_at": kill_at, "prepared": prepared})
    done = subprocess.run([sys.executable, __file__, asked], capture_output=True, text=True)
    errors_to.write_text(done.stderr)
    return done.returncode


def _as_child(asked: dict[str, Any]) -> int:
    from kumodr.cli import main as command

    if asked["kill_at"] is not None:
        _arm(*asked["kill_at"])
    if asked["prepared"] is not None:
        module, _, name = asked["prepared"].partition(":")
        getattr(importlib.import_module(module), name)()
    return command.main(asked["words"])


def _arm(place: int | str, moment: Moment) -> None:
    real, count = engine._Going._worked, 0  # pyright: ignore[reportPrivateUsage]

    def worked(self: Any, step: Any, phase: Any, work: Any) -> Any:
        nonlocal count
        count += 1
        if (count, moment) == (place, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(self, step, phase, work)
        named = step.name == place and (phase == "act" or result[0] == "already")
        if moment == "after" and (count == place or named):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    engine._Going._worked = worked  # pyright: ignore[reportPrivateUsage]


if __name__ == "__main__":
    sys.exit(_as_child(json.loads(sys.argv[1])))
