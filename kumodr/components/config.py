"""Configuration as a component: files and folders, what defines the services, and the environment that they read."""

import fnmatch
import json
import os
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.places import FILE as PLACES
from kumodr.components.places import places_text
from kumodr.components.protocol import Finding, Verdict
from kumodr.plan.model import ConfigPlan, Plan
from kumodr.runtimes.protocol import Definition
from kumodr.source import Capture, CaptureFacts, Held, SourceFile, identity_of

ENVIRONMENT = "environment"
PLAN = "plan.json"
"""The plan itself, as it was understood: a recovery begins with it where nothing else is left."""

_LARGEST_FILE = 256 << 20


class ConfigComponent:
    """What the plan and the runtime name, below `files/` with its absolute path, and matching variables: of this
    process in the file `environment`, of each running service in `environment.SERVICE`. The plan is in `plan.json`,
    `places.json` says where the site has its data.
    """

    name = "config"

    def __init__(self, plan: Plan, clock: Clock, environment: Mapping[str, str] = os.environ) -> None:
        self._whole = plan
        self._plan: ConfigPlan = plan.components.config or ConfigPlan()
        self._clock = clock
        self._environment = environment

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Read every file that the plan names, and those that define the services. Raise FileUnreadable with all that
        cannot be read, and the runtime's errors.

        Files are small and may be edited at any moment: each is read whole here, and again where it changed meanwhile.
        A mount may hold data, which comes and goes: what cannot be read there is left out and said.
        """
        unreadable: list[str] = []
        skipped: list[str] = []
        found = dict[str, SourceFile]()
        services, defined = self._services()
        for path in (*self._plan.paths, *defined.paths):
            for file in _tree(path, unreadable, skipped):
                found.setdefault(file.path, file)
        left_out = self._left_out(defined)
        for path in self._mounts(defined):
            for file in _tree(path, left_out, skipped):
                found.setdefault(file.path, file)
        if unreadable:
            raise errors.FileUnreadable(f"configuration cannot be read: {', '.join(unreadable)}")
        variables = {ENVIRONMENT: self.variables()} | {
            f"{ENVIRONMENT}.{service}": self._matching(values) for service, values in services.items()
        }
        files = sum(file.kind == "file" for file in found.values())
        for name, values in variables.items():
            text = "".join(f"{each}={_quoted(value)}\n" for each, value in sorted(values.items())).encode()
            found[name] = SourceFile(name, mode=0o600, size=len(text), content=Held(text))
        whole = json.dumps(asdict(self._whole), indent=1).encode()
        found[PLAN] = SourceFile(PLAN, mode=0o600, size=len(whole), content=Held(whole))
        places = places_text(self._whole)
        found[PLACES] = SourceFile(PLACES, mode=0o600, size=len(places), content=Held(places))
        clear: dict[str, Any] = {
            "config_files": files,
            "variables": len(variables[ENVIRONMENT]),
            "services": len(services),
            "special_files_left_out": len(skipped),
            "mounts_left_out": len(left_out),
        }
        sealed = {"left_out": [*skipped, *left_out]}
        yield Capture(files=list(found.values()), facts=lambda: CaptureFacts(clear, sealed))

    def variables(self) -> dict[str, str]:
        """Return the variables that match the plan's patterns."""
        return self._matching(self._environment)

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/config`, count its files; that the bytes are right is proved by their hashes."""
        if not (restored / ENVIRONMENT).is_file():
            return Verdict("the file with the environment is missing")
        files = sum(path.is_file() and not path.is_symlink() for path in (restored / "files").rglob("*"))
        return Verdict(None, {"config_files": files, "services": len(list(restored.glob(f"{ENVIRONMENT}.*")))})

    def health(self) -> tuple[Finding, ...]:
        """Say which of the files cannot be read or are left out, and how many variables match."""
        unreadable: list[str] = []
        skipped: list[str] = []
        try:
            services, defined = self._services()
        except errors.KumodrError as error:
            return (Finding("bad", error.what, error.remedy),)
        count = sum(1 for path in (*self._plan.paths, *defined.paths) for _file in _tree(path, unreadable, skipped))
        if unreadable:
            text = f"configuration cannot be read: {', '.join(unreadable)}"
            return (Finding("bad", text, errors.FileUnreadable.default_remedy),)
        left_out = self._left_out(defined)
        count += sum(1 for path in self._mounts(defined) for _file in _tree(path, left_out, skipped))
        text = f"configuration: {count} entries, {len(self.variables())} variables"
        text += f", environment of {len(services)} running services" if services else ""
        remedy = "name it in components.config.paths where it is configuration"
        return (Finding("good", text), *(Finding("warning", f"not stored: {each}", remedy) for each in left_out))

    def defining(self) -> tuple[str, ...]:
        """Return the files that define the services; none where the runtime cannot be asked."""
        try:
            return self._services()[1].paths
        except errors.KumodrError:
            return ()

    def _services(self) -> tuple[dict[str, Mapping[str, str]], Definition]:
        """Return the environment of each running service of the runtime, and what defines them."""
        if self._whole.runtime.kind == "none" or not self._plan.project:
            return {}, Definition()
        from kumodr.runtimes.opening import runtime_of

        runtime = runtime_of(self._whole, say=lambda _text: None)
        running: dict[str, Mapping[str, str]] = {}
        for service in runtime.services():
            if runtime.state(service).running:
                try:
                    running[service] = runtime.environment(service)
                except errors.ServiceFailed as error:
                    if runtime.state(service).running:
                        raise errors.FileUnreadable(error.what, remedy="run kumodr as root") from error
        return running, runtime.definition()

    def _mounts(self, defined: Definition) -> Iterator[str]:
        """Yield the mounts that no other component stores: neither within nor around a folder of its data."""
        parts = self._whole.components
        data = [*((parts.spool.meta, parts.spool.data) if parts.spool else ())]
        data += [*(parts.logs.directories if parts.logs else ()), self._whole.state, self._whole.vault.url]
        data += [each.data for each in (parts.redis, parts.prometheus) if each and each.data]
        live = [Path(os.path.realpath(each)) for each in data]
        for mount in defined.mounts:
            real = Path(os.path.realpath(mount))
            if not any(real.is_relative_to(each) or each.is_relative_to(real) for each in live):
                yield mount

    def _left_out(self, defined: Definition) -> list[str]:
        """Return what the runtime leaves out, but for what the plan names."""
        named = [f"{path.rstrip('/')}{after}" for path in self._plan.paths for after in (":", "/")]
        return [each for each in defined.left_out if not each.startswith(tuple(named))]

    def _matching(self, variables: Mapping[str, str]) -> dict[str, str]:
        patterns = self._plan.environment
        return {
            name: value
            for name, value in variables.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }


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
