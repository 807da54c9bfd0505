"""Processes that outlive the command which started them: known by pid and start time, so that none other is touched."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors


@dataclass(frozen=True)
class Process:
    """A started process: its pid, and when the kernel says it began (in clock ticks since boot)."""

    pid: int
    began: int


def start(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, directory: Path | None = None
) -> Process:
    """Given a command, start it in a session of its own, its output appended to `log`. Raise LabFailed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        try:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=dict(environment) if environment is not None else None,
                cwd=directory,
            )
        except OSError as error:
            raise errors.LabFailed(f"{command[0]} cannot be started: {error.strerror}") from error
    _children[child.pid] = child
    return Process(child.pid, _began(child.pid) or 0)


def is_running(process: Process) -> bool:
    """Say whether it still runs: the same pid, begun at the same time, and no zombie."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        return False
    return _began(process.pid) == process.began


def stop(process: Process, limit: float = 20) -> None:
    """End it with SIGTERM, and after `limit` seconds with SIGKILL. Does nothing where it does not run."""
    _signal(process, signal.SIGTERM)
    if not _ended(process, limit):
        kill(process)


def kill(process: Process) -> None:
    """End it with SIGKILL. Does nothing where it does not run."""
    _signal(process, signal.SIGKILL)
    _ended(process, 10)


def _signal(process: Process, number: signal.Signals) -> None:
    if is_running(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def _ended(process: Process, limit: float) -> bool:
    deadline = time.monotonic() + limit
    while is_running(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _began(pid: int) -> int | None:
    """Return the start time of a live process, or None. The name in /proc may hold anything, so it is cut off."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


_children: dict[int, "subprocess.Popen[bytes]"] = {}
"""Children of this very process, so that ended ones are reaped. A fork has none, and must not take ours for ended."""

os.register_at_fork(after_in_child=_children.clear)
