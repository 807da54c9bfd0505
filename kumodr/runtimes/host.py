"""What a runtime without containers asks of this host: a process's environment and use, files, log tails."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from kumodr import errors
from kumodr.runtimes.protocol import Usage

_TAIL = 1 << 20


def environment_of(pid: int) -> Mapping[str, str]:
    """Given a live process, return the variables it was started with. Raise ServiceFailed.

    A program that writes its title over them, as Redis does, shows none of them.
    """
    words = os.fsdecode(_read(pid, "environ")).split("\0")
    return {name: value for name, mark, value in (word.partition("=") for word in words) if mark}


def usage_of(pid: int) -> Usage:
    """Given a live process, return what it uses. Raise ServiceFailed."""
    fields = dict(line.split(":", 1) for line in os.fsdecode(_read(pid, "status")).splitlines() if ":" in line)
    return Usage(int(fields["VmRSS"].split()[0]) * 1024, int(fields["Threads"]))


def digest_of(pid: int) -> str:
    """Given a live process, return the SHA-256 of its program. Raise ServiceFailed."""
    try:
        with open(f"/proc/{pid}/exe", "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise errors.ServiceFailed(f"the program of process {pid} cannot be read: {error.strerror}") from error


def program_of(pid: int) -> str:
    """Given a live process, return the path of its program. Raise ServiceFailed."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError as error:
        raise errors.ServiceFailed(f"the program of process {pid} cannot be read: {error.strerror}") from error


def there(path: str | Path) -> Path | None:
    """Given a path of this host, return it where this user may read it."""
    return Path(path) if os.access(path, os.R_OK) else None


def copy(source: Path, target: Path) -> None:
    """Given a file, copy it. Raise ServiceFailed, DiskFull."""
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.errno == 28:
            raise errors.DiskFull(f"no space is left for {target}") from error
        raise errors.ServiceFailed(f"{source} cannot be copied to {target}: {error.strerror}") from error


def must_be_new(target: Path) -> None:
    """Given where a copy shall go, raise TargetNotEmpty where there is something."""
    if os.path.lexists(target):
        raise errors.TargetNotEmpty(f"{target} exists", remedy="name a new file")


def tail(file: Path, lines: int) -> str:
    """Given a log, return its last lines, at most 1 MiB. Empty where there is none."""
    try:
        with open(file, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL))
            return "\n".join(log.read(_TAIL).decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError as error:
        raise errors.ServiceFailed(f"process {pid} cannot be looked into: {error.strerror}") from error
