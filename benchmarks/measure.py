"""Run one command as a whole process and take its time, processor time and memory, its children's too."""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_EVERY = 0.02
_EVERY_AT_FIRST = 0.001


@dataclass(frozen=True)
class Command:
    """What to run: words, never a shell; `environment` is added to this process's."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Usage:
    """What a command took. `seconds` from start to end, `processor` of all its processes, `peak` in bytes:
    resident memory, the sum over its processes at one moment, or the most of any one if that is more."""

    seconds: float
    processor: float
    peak: int


class CommandFailed(Exception):
    """A tool ended with another code than 0; the text says which, and the end of what it printed."""


def measure(command: Command, limit: float = 7200) -> Usage:
    """Given a command, run it and return its usage. Raise CommandFailed.

    Memory is polled, every 20 ms, more often at first; processor time is what the kernel counts for the process and the
    children that it waited for. The command's own process group is ended when this is interrupted or after `limit`
    seconds.
    """
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        try:
            process = subprocess.Popen(
                command.words,
                env={**os.environ, **command.environment},
                cwd=command.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(f"{command.words[0]} does not start: {error.strerror}") from error
        try:
            peak = _watch(process.pid, begun + limit)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(max(output.seek(0, os.SEEK_END) - 600, 0))
            tail = " ".join(output.read().decode("utf-8", "replace").split())
            raise CommandFailed(f"`{' '.join(command.words[:3])}` ended with {process.returncode}: {tail[-400:]}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime, peak)


def _watch(pid: int, until: float) -> int:
    """Wait for a process to end; return the most memory seen. The process is left to be waited for."""
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    peak, begun = 0, time.perf_counter()
    try:
        while not poll.poll(1000 * (_EVERY if time.perf_counter() - begun > 2 * _EVERY else _EVERY_AT_FIRST)):
            now = [each for each in map(_memory, _tree(pid)) if each]
            peak = max([peak, sum(resident for resident, _ in now), *(most for _, most in now)])
            if time.perf_counter() > until:
                raise CommandFailed("the command took longer than the limit")
    finally:
        os.close(ended)
    return peak


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _memory(pid: int) -> tuple[int, int] | None:
    """Return what is resident of a process now, and the most that ever was since it became this program; in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return (found["VmRSS"], found["VmHWM"]) if len(found) == 2 else None
