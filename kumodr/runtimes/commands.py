"""Commands with a time limit and a bounded answer, never through a shell."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from kumodr import errors

OUTPUT_LIMIT = 16 << 20
"""More bytes of an answer are not read."""


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it printed, each at most OUTPUT_LIMIT bytes."""

    code: int
    out: bytes
    err: bytes


class Runner(Protocol):
    """Runs a command. Raise ToolMissing where the program is not there, RuntimeSlow after `limit` seconds.

    What it prints goes to the file `output` where that is given, however much it is; `Answer.out` is empty then.
    """

    def __call__(
        self,
        command: Sequence[str],
        *,
        limit: float,
        stdin: bytes = b"",
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
    ) -> Answer: ...


def run(
    command: Sequence[str],
    *,
    limit: float,
    stdin: bytes = b"",
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> Answer:
    """Given a command, run it to its end. Raise ToolMissing, RuntimeSlow; then it and its children are ended."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        come = _hold_signals()
        try:
            child = subprocess.Popen(
                list(command),
                stdin=given,
                stdout=output or out,
                stderr=err,
                cwd=directory,
                env=dict(environment) if environment is not None else None,
                start_new_session=True,
            )
        except OSError as error:
            come()
            raise errors.ToolMissing(f"{command[0]} cannot be run: {error.strerror}") from error
        try:
            come()
            code = child.wait(limit)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise errors.RuntimeSlow(f"{' '.join(command[:2])} did not end within {limit:g} s") from error
        return Answer(code, _read(out), _read(err))


def _hold_signals() -> Callable[[], None]:
    """Hold up what would break off this thread, and return what lets it come: an interrupt in the midst of starting a
    command would leave it behind, running, with nobody who knows of it.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    caught: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, _frame: caught.append(number))

    def come() -> None:
        for number, handler in held.items():
            signal.signal(number, handler)
        for number in caught:
            signal.raise_signal(number)

    return come


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(OUTPUT_LIMIT)
