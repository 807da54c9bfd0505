"""The processes of a lab site as a runtime. Paths that a service sees are those of this host."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from kumodr import errors
from kumodr.lab.services import log_of
from kumodr.lab.site import Site
from kumodr.runtimes import host
from kumodr.runtimes.commands import Answer, Runner, run
from kumodr.runtimes.endings import explained
from kumodr.runtimes.protocol import Definition, Image, State, Stopped, Usage


class ProcessRuntime:
    """The services of a lab site."""

    def __init__(
        self,
        site: Site,
        *,
        say: Callable[[str], None],
        runner: Runner = run,
        now: Callable[[], float] = monotonic,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._site, self._say, self._run, self._now, self._pause = site, say, runner, now, pause

    def services(self) -> tuple[str, ...]:
        return self._site.names()

    def start(self, service: str) -> None:
        self._known(service)
        try:
            self._site.start([service])
        except errors.LabFailed as error:
            known = explained(host.tail(log_of(service, self._site), 10), service)
            raise known or errors.ServiceFailed(error.what, remedy=error.remedy) from error

    def stop(self, service: str, *, patience: float) -> Stopped:
        pid, began = self.state(service).pid, self._now()
        if pid is None:
            return Stopped("not running", 0.0)
        self._say(f"waiting up to {patience:g} s for {service} to finish what it does and end by itself")
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return Stopped("by itself", self._now() - began)
        while self._site.running(service):
            if self._now() - began >= patience:
                self._site.kill([service])
                return Stopped("killed", self._now() - began)
            self._pause(0.02)
        return Stopped("by itself", self._now() - began)

    def kill(self, service: str) -> None:
        self._known(service)
        self._site.kill([service])

    def state(self, service: str) -> State:
        self._known(service)
        pid = self._site.pid(service)
        return State(pid is not None, "running" if pid is not None else "stopped", pid)

    def exec(
        self,
        service: str,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        limit: float = 60,
        output: IO[bytes] | None = None,
    ) -> Answer:
        environment, directory = self.environment(service), self._site.directory
        return self._run(command, limit=limit, stdin=stdin, directory=directory, environment=environment, output=output)

    def host_path(self, service: str, path: str) -> Path | None:
        return host.there(path)

    def copy_in(self, service: str, source: Path, target: str) -> None:
        self._known(service)
        host.copy(source, Path(target))

    def copy_out(self, service: str, source: str, target: Path) -> None:
        self._known(service)
        host.must_be_new(target)
        host.copy(Path(source), target)

    def environment(self, service: str) -> Mapping[str, str]:
        return host.environment_of(self._pid(service))

    def logs(self, service: str, *, lines: int = 100) -> str:
        self._known(service)
        return host.tail(log_of(service, self._site), lines)

    def scale(self, service: str, count: int) -> None:
        if count not in (0, 1):
            raise errors.ScaleImpossible(f"{service} of a lab site cannot run {count} times")
        if count:
            self.start(service)
        else:
            self.stop(service, patience=20)

    def usage(self, service: str) -> Usage:
        return host.usage_of(self._pid(service))

    def digest(self, service: str) -> str:
        return host.digest_of(self._pid(service))

    def image(self, service: str) -> Image:
        pid = self.state(service).pid
        return Image(service, None) if pid is None else Image(host.program_of(pid), host.digest_of(pid))

    def definition(self) -> Definition:
        return Definition()

    def _known(self, service: str) -> None:
        if service not in self._site.names():
            raise errors.ServiceMissing(f"the lab site has no service {service!r}")

    def _pid(self, service: str) -> int:
        pid = self.state(service).pid
        if pid is None:
            raise errors.ServiceFailed(f"{service} does not run", remedy="start it")
        return pid
