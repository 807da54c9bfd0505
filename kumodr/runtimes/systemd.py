"""Units of systemd as a runtime: kumomta.service, redis-server.service and whatever else a plan names.

systemd has a patience of its own, TimeoutStopSec (300 s in KumoMTA's unit, whose graceful end may take 20 min). A stop
here asks without waiting, and says so where the unit would be killed before the patience given is over.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from kumodr import errors
from kumodr.runtimes import host
from kumodr.runtimes.commands import Answer, Runner, run
from kumodr.runtimes.endings import explained
from kumodr.runtimes.protocol import Definition, Image, State, Stopped, Usage

_QUICK = 60.0
_START = 600.0
_SETTLE = 1.0
_POLL = 0.1
_PROPERTIES = (
    "LoadState,ActiveState,SubState,MainPID,ExecMainStatus,NRestarts,Result,TimeoutStopUSec,MemoryCurrent,TasksCurrent"
)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class SystemdRuntime:
    """The units that are named, in the order in which they are started."""

    def __init__(
        self,
        units: Sequence[str],
        *,
        say: Callable[[str], None],
        runner: Runner = run,
        now: Callable[[], float] = monotonic,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._units, self._say, self._run, self._now, self._pause = tuple(units), say, runner, now, pause

    def services(self) -> tuple[str, ...]:
        return self._units

    def start(self, service: str) -> None:
        if self.state(service).running:
            return
        self._ask("start", service, limit=_START)
        began = self._now()
        while self._now() - began < _SETTLE:
            state = self.state(service)
            loops = state.word == "auto-restart" or state.restarts > 0
            if loops or not state.running:
                raise explained(self.logs(service, lines=10), service) or _early_end(service, state, loops=loops)
            self._pause(_POLL)

    def stop(self, service: str, *, patience: float) -> Stopped:
        before, began = self._show(service), self._now()
        if before["ActiveState"] == "inactive" or before["ActiveState"] == "failed":
            return Stopped("not running", 0.0)
        self._say(f"waiting up to {patience:g} s for {service} to finish what it does and end by itself")
        own = _duration(before["TimeoutStopUSec"])
        if own is not None and own < patience:
            self._say(f"systemd kills {service} after {own:g} s: set TimeoutStopSec in a drop-in to wait longer")
        self._ask("stop", service, "--no-block")
        killed = False
        while (facts := self._show(service))["ActiveState"] not in ("inactive", "failed"):
            if not killed and self._now() - began >= patience:
                self._ask("kill", service, "--signal=KILL")
                killed = True
            if self._now() - began >= patience + _QUICK:
                raise errors.ServiceFailed(f"{service} is still there {_QUICK:g} s after it was killed")
            self._pause(_POLL)
        by_systemd = facts["Result"] in ("timeout", "watchdog", "oom-kill")
        return Stopped("killed" if killed or by_systemd else "by itself", self._now() - began)

    def kill(self, service: str) -> None:
        if self._show(service)["ActiveState"] in ("inactive", "failed"):
            return
        # Asked to stop first, so that Restart=always does not bring it back.
        self._ask("stop", service, "--no-block")
        self._ask("kill", service, "--signal=KILL")
        began = self._now()
        while self._show(service)["ActiveState"] not in ("inactive", "failed"):
            if self._now() - began >= _QUICK:
                raise errors.ServiceFailed(f"{service} is still there {_QUICK:g} s after it was killed")
            self._pause(_POLL)

    def state(self, service: str) -> State:
        facts = self._show(service)
        running = facts["ActiveState"] in ("active", "reloading")
        code = None if running else int(facts["ExecMainStatus"])
        return State(running, facts["SubState"], int(facts["MainPID"]) or None, code, int(facts["NRestarts"]))

    def exec(
        self,
        service: str,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        limit: float = 60,
        output: IO[bytes] | None = None,
    ) -> Answer:
        return self._run(command, limit=limit, stdin=stdin, environment=self.environment(service), output=output)

    def host_path(self, service: str, path: str) -> Path | None:
        return host.there(path)

    def copy_in(self, service: str, source: Path, target: str) -> None:
        self._show(service)
        host.copy(source, Path(target))

    def copy_out(self, service: str, source: str, target: Path) -> None:
        self._show(service)
        host.must_be_new(target)
        host.copy(Path(source), target)

    def environment(self, service: str) -> Mapping[str, str]:
        return host.environment_of(self._pid(service))

    def logs(self, service: str, *, lines: int = 100) -> str:
        self._show(service)
        command = ["journalctl", f"--unit={service}", f"--lines={lines}", "--no-pager", "--output=cat", "--quiet"]
        return self._run(command, limit=_QUICK).out.decode(errors="replace").rstrip("\n")

    def scale(self, service: str, count: int) -> None:
        if count not in (0, 1):
            raise errors.ScaleImpossible(f"the unit {service} cannot run {count} times")
        if count:
            self.start(service)
        else:
            self.stop(service, patience=300)

    def usage(self, service: str) -> Usage:
        pid, facts = self._pid(service), self._show(service)
        if facts["MemoryCurrent"].isdigit() and facts["TasksCurrent"].isdigit():
            return Usage(int(facts["MemoryCurrent"]), int(facts["TasksCurrent"]))
        return host.usage_of(pid)

    def digest(self, service: str) -> str:
        return host.digest_of(self._pid(service))

    def image(self, service: str) -> Image:
        pid = self.state(service).pid
        return Image(service, None) if pid is None else Image(host.program_of(pid), host.digest_of(pid))

    def definition(self) -> Definition:
        """The units, their drop-ins and environment files: what was made here, and what the package brought."""
        paths: list[str] = []
        for unit in self._units:
            self._show(unit)
            answer = self._ask("show", unit, "--property=FragmentPath,DropInPaths,EnvironmentFiles")
            for line in answer.out.decode(errors="replace").splitlines():
                name, _, value = line.partition("=")
                if name == "EnvironmentFiles":
                    paths.append(value.rpartition(" (ignore_errors=")[0])
                else:
                    paths += value.split() if name == "DropInPaths" else [value]
        return Definition(tuple(dict.fromkeys(each for each in paths if each and os.path.lexists(each))))

    def _pid(self, service: str) -> int:
        pid = self.state(service).pid
        if pid is None:
            raise errors.ServiceFailed(f"{service} does not run", remedy="start it")
        return pid

    def _show(self, service: str) -> dict[str, str]:
        if service not in self._units:
            raise errors.ServiceMissing(f"the plan names no unit {service!r}")
        out = self._ask("show", service, f"--property={_PROPERTIES}").out.decode(errors="replace")
        facts = {name: value for name, _, value in (line.partition("=") for line in out.splitlines())}
        if facts.get("LoadState") != "loaded":
            raise errors.ServiceMissing(f"systemd has no unit {service!r}", remedy="install it, or name another")
        return facts

    def _ask(self, verb: str, service: str, *options: str, limit: float = _QUICK) -> Answer:
        answer = self._run(["systemctl", verb, *options, "--", service], limit=limit)
        if answer.code:
            text = answer.err.decode(errors="replace").strip()
            if "not been booted with systemd" in text or "Failed to connect to bus" in text:
                raise errors.ServiceFailed("systemd does not run on this machine", remedy="use another runtime")
            if "Access denied" in text or "authentication required" in text.lower():
                raise errors.ServiceFailed(f"systemd does not let this user {verb} {service}", remedy="run as root")
            raise errors.ServiceFailed(f"systemctl {verb} {service} failed: {' '.join(text.split())[:300]}")
        return answer


def _early_end(service: str, state: State, *, loops: bool) -> errors.KumodrError:
    if loops:
        return errors.ServiceRestarts(f"{service} ends and is restarted in a loop")
    return errors.ServiceFailed(f"{service} ended as soon as it was started, with exit code {state.exit_code}")


def _duration(text: str) -> float | None:
    """Given how systemd prints a time ("1min 30s", "5min", "infinity"), return seconds, None where it has no end."""
    total = 0.0
    for word in text.split():
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = word[len(number) :]
        if not number or unit not in _SECONDS:
            return None
        total += float(number) * _SECONDS[unit]
    return total
