"""Configuration as a component: files and folders, and the environment that the mail server's policy reads."""

import fnmatch
import os
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding, Verdict
from kumodr.plan.model import ConfigPlan, Plan
from kumodr.source import Capture, CaptureFacts, Held, SourceFile, identity_of

ENVIRONMENT = "environment"
_LARGEST_FILE = 256 << 20


class ConfigComponent:
    """What the plan names, below `files/` with its absolute path, and matching variables in the file `environment`."""

    name = "config"

    def __init__(self, plan: Plan, clock: Clock, environment: Mapping[str, str] = os.environ) -> None:
        self._plan: ConfigPlan = plan.components.config or ConfigPlan()
        self._clock = clock
        self._environment = environment

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Read every file that the plan names. Raise FileUnreadable with all that cannot be read.

        Files are small and may be edited at any moment: each is read whole here, and again where it changed meanwhile.
        """
        unreadable: list[str] = []
        skipped: list[str] = []
        found = dict[str, SourceFile]()
        for path in self._plan.paths:
            for file in _tree(path, unreadable, skipped):
                found.setdefault(file.path, file)
        if unreadable:
            raise errors.FileUnreadable(f"configuration cannot be read: {', '.join(unreadable)}")
        variables = self.variables()
        text = "".join(f"{name}={_quoted(value)}\n" for name, value in sorted(variables.items())).encode()
        found[ENVIRONMENT] = SourceFile(ENVIRONMENT, mode=0o600, size=len(text), content=Held(text))
        files = sum(file.kind == "file" for file in found.values()) - 1
        clear: dict[str, Any] = {
            "config_files": files,
            "variables": len(variables),
            "special_files_left_out": len(skipped),
        }
        yield Capture(files=list(found.values()), facts=lambda: CaptureFacts(clear, {"left_out": skipped}))

    def variables(self) -> dict[str, str]:
        """Return the variables that match the plan's patterns."""
        patterns = self._plan.environment
        return {
            name: value
            for name, value in self._environment.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/config`, count its files; that the bytes are right is proved by their hashes."""
        if not (restored / ENVIRONMENT).is_file():
            return Verdict("the file with the environment is missing")
        files = sum(path.is_file() and not path.is_symlink() for path in (restored / "files").rglob("*"))
        return Verdict(None, {"config_files": files})

    def health(self) -> tuple[Finding, ...]:
        """Say which of the plan's files cannot be read, and how many variables match."""
        unreadable: list[str] = []
        skipped: list[str] = []
        count = sum(1 for path in self._plan.paths for _file in _tree(path, unreadable, skipped))
        if unreadable:
            text = f"configuration cannot be read: {', '.join(unreadable)}"
            return (Finding("bad", text, errors.FileUnreadable.default_remedy),)
        return (Finding("good", f"configuration: {count} entries, {len(self.variables())} variables"),)


def _quoted(value: str) -> str:
    """Return a value as one line that a shell reads back: newlines and quotes survive."""
    return "'" + value.replace("'", "'\\''") + "'" if any(each in value for each in " \t\n'\"\\$#;&|<>`") else value


def _tree(path: str, unreadable: list[str], skipped: list[str]) -> Iterator[SourceFile]:
    """Yield the entry at a path and, where it is a folder, everything below it; links stay links."""
    try:
        status = os.lstat(path)
    except OSError as error:
        unreadable.append(f"{path} ({error.strerror})")
        return
    if stat.S_ISLNK(status.st_mode):
        yield _entry(path, status, "symlink", target=os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        content = _read(path, unreadable)
        if content is not None:
            yield _entry(path, status, "file", content=content)
    elif stat.S_ISDIR(status.st_mode):
        yield _entry(path, status, "directory")
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            unreadable.append(f"{path} ({error.strerror})")
            return
        for name in names:
            yield from _tree(os.path.join(path, name), unreadable, skipped)
    else:
        skipped.append(path)


def _read(path: str, unreadable: list[str]) -> bytes | None:
    try:
        for _attempt in range(5):
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
                before = identity_of(os.fstat(file.fileno()))
                data = file.read(_LARGEST_FILE + 1)
                if len(data) > _LARGEST_FILE:
                    unreadable.append(f"{path} (larger than 256 MiB)")
                    return None
                if before == identity_of(os.fstat(file.fileno())) and before[2] == len(data):
                    return data
        unreadable.append(f"{path} (it changed while it was read, five times)")
    except OSError as error:
        unreadable.append(f"{path} ({error.strerror})")
    return None


def _entry(
    path: str,
    status: os.stat_result,
    kind: Literal["file", "directory", "symlink"],
    *,
    content: bytes = b"",
    target: str = "",
) -> SourceFile:
    return SourceFile(
        path="files/" + path.lstrip("/"),
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=len(content),
        content=Held(content),
        target=target,
    )
