"""What every runtime can do. A new runtime is one new file here that passes `tests/test_runtimes.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from kumodr.runtimes.commands import Answer


@dataclass(frozen=True)
class State:
    """How a service stands. `exit_code` is that of its last end, None while it runs or where nobody kept it."""

    running: bool
    word: str
    pid: int | None = None
    exit_code: int | None = None
    restarts: int = 0


@dataclass(frozen=True)
class Stopped:
    """How a service ended. After "killed" its logs lack their tail and deferred mail may not have been saved."""

    how: Literal["not running", "by itself", "killed"]
    seconds: float


@dataclass(frozen=True)
class Usage:
    """What a service uses now: bytes of memory; processes and threads."""

    memory: int
    tasks: int


@dataclass(frozen=True)
class Image:
    """What a service is made from: its name as the site's definition says it, and `id`, None where it is not here.

    `tags` and `digests` (`name@sha256:…`, as a registry knows it) are names of that id; `layers` its layers' digests.
    """

    name: str
    id: str | None
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Definition:
    """What says how the services are made: `paths` of files; `mounts`, folders and files of this host that containers
    see, and that look like configuration, though data may lie there; and what was left out, each with the reason.
    """

    paths: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Runtime(Protocol):
    """The services of one site. Every call ends within a limit; nothing goes through a shell."""

    def services(self) -> tuple[str, ...]:
        """Return the names of the services. Raise a named error where they cannot be told."""
        ...

    def start(self, service: str) -> None:
        """Start a service that does not run, and see that it stays up. Raise ServiceFailed, ServiceRestarts."""
        ...

    def stop(self, service: str, *, patience: float) -> Stopped:
        """Ask a service to end; only after `patience` seconds kill it. Nothing happens where it does not run."""
        ...

    def kill(self, service: str) -> None:
        """End a service at once, without its consent. Nothing happens where it does not run."""
        ...

    def state(self, service: str) -> State:
        """Return how a service stands. Raise ServiceMissing where the site has none of that name."""
        ...

    def exec(
        self,
        service: str,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        limit: float = 60,
        output: IO[bytes] | None = None,
    ) -> "Answer":
        """Run a command beside a running service, in its file system and environment. Secrets go by `stdin`.

        What it prints goes to the file `output` where that is given, however much it is.
        """
        ...

    def host_path(self, service: str, path: str) -> Path | None:
        """Given a path as a running service sees it, return where this host has the same, None where it has not."""
        ...

    def copy_in(self, service: str, source: Path, target: str) -> None:
        """Given a file of this host, put it where the service sees it as `target`; its folder exists."""
        ...

    def copy_out(self, service: str, source: str, target: Path) -> None:
        """Given a file as the service sees it, copy it to a new file of this host. Raise TargetNotEmpty."""
        ...

    def environment(self, service: str) -> Mapping[str, str]:
        """Return the variables a running service was started with. They hold secrets: never print them."""
        ...

    def logs(self, service: str, *, lines: int = 100) -> str:
        """Return the last lines of what a service printed."""
        ...

    def scale(self, service: str, count: int) -> None:
        """Have so many instances run. Raise ScaleImpossible where this runtime cannot."""
        ...

    def usage(self, service: str) -> Usage:
        """Return what a running service uses. Raise ServiceFailed where it does not run."""
        ...

    def digest(self, service: str) -> str:
        """Return `sha256:…` of what a service runs: of its image, or of its program where there is no image."""
        ...

    def image(self, service: str) -> Image:
        """Return what a service runs, or where it does not, what it would run."""
        ...

    def definition(self) -> Definition:
        """Return what somebody needs to make the services again: the files that define them, what these name."""
        ...
