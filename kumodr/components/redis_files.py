"""The files that a Redis server keeps its data in, held open: its dump, and its append-only files.

Why the append-only files that are held belong together, without a lock and without stopping a rewrite: since version 7
a manifest, replaced by rename, names a base and the increments on top of it. Their names carry numbers that only grow,
so a name never stands for other content. The base, and every increment but the last, is complete when a manifest names
what comes behind it, and never changes; the last is only appended to. So the files of one manifest, whichever it was,
opened and cut at the size they have then, are the data of that moment. A rewrite that ends meanwhile makes a new
manifest and may unlink old files: an open descriptor keeps them, and one that is gone before it was opened means that
the manifest is read again. The cut may fall into a command, as a crash may; Redis leaves such a tail out on start.
Before version 7 it is one file, appended to, and replaced by rename.
Redis writes to them before it answers; only with `appendfsync everysec` and a disk that is busy it may be two seconds
late. The dump is not: it holds everything that was answered before it began.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kumodr import errors
from kumodr.components.redis_commands import cli_options
from kumodr.plan.model import RedisPlan
from kumodr.runtimes.commands import run
from kumodr.runtimes.protocol import Runtime

_TRIES = 10
_COPY = 3600.0
_LARGEST_MANIFEST = 1 << 20

Opener = Callable[[str], int]
"""Given a path as the server sees it, return a descriptor of it. Raise FileNotFoundError, ComponentUnavailable."""


@dataclass(frozen=True)
class Part:
    """One file of the append-only data: its name, and what it holds up to `size`."""

    name: str
    descriptor: int
    size: int


def opener_here(stack: ExitStack, directory: str, here: Path) -> Opener:
    """Given the server's directory and where this host has it, return how its files are opened until the stack ends."""

    def opened(path: str) -> int:
        place = here / os.path.relpath(path, directory)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise errors.ComponentUnavailable(
                f"redis: {place} cannot be read: {error.strerror}",
                remedy="give kumodr read access to Redis's data directory",
            ) from error
        stack.callback(os.close, descriptor)
        return descriptor

    return opened


def opener_inside(stack: ExitStack, runtime: Runtime, service: str, scratch: str | None) -> Opener:
    """Given a service whose files this host cannot read, return how they are copied, into unnamed files in `scratch`.

    `cat` opens a file once, so what it gives is one file, whatever takes its name meanwhile.
    """

    def opened(path: str) -> int:
        file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 — the stack closes it
        stack.callback(file.close)
        answer = runtime.exec(service, ["cat", path], limit=_COPY, output=file)
        if answer.code:
            reason = answer.err.decode(errors="replace").strip()[:200]
            if "No such file" in reason:
                raise FileNotFoundError(path)
            raise errors.ComponentUnavailable(f"redis: {path} in {service} cannot be read: {reason}")
        return file.fileno()

    return opened


def append_only(open_file: Opener, directory: str, folder: str | None, name: str) -> tuple[Part, ...]:
    """Given the server's directory, the folder of its append-only files in it (None: a version before 7) and their
    common name, return them, the manifest first. Raise ComponentUnavailable.
    """
    if folder is None:
        try:
            descriptor = open_file(f"{directory}/{name}")
        except FileNotFoundError as error:
            raise errors.ComponentUnavailable(f"redis: {directory}/{name} is not there") from error
        return (Part(name, descriptor, os.fstat(descriptor).st_size),)
    for _try in range(_TRIES):
        try:
            manifest = open_file(f"{directory}/{folder}/{name}.manifest")
            data = os.pread(manifest, _LARGEST_MANIFEST, 0)
            parts = [Part(f"{folder}/{name}.manifest", manifest, len(data))]
            for each in named_in(data):
                descriptor = open_file(f"{directory}/{folder}/{each}")
                parts.append(Part(f"{folder}/{each}", descriptor, os.fstat(descriptor).st_size))
            return tuple(parts)
        except FileNotFoundError:
            continue
    raise errors.ComponentUnavailable(
        f"redis: the append-only files in {directory}/{folder} are not all there, or are replaced all the time",
        remedy="run this again; correct components.redis.data where Redis keeps its files elsewhere",
    )


def named_in(manifest: bytes) -> list[str]:
    """Given a manifest, return the files that it needs: base and increments, no history. Raise ComponentUnavailable."""
    names: list[str] = []
    for line in manifest.decode(errors="replace").splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        facts = dict(zip(words[::2], words[1::2], strict=False))
        name = facts.get("file", "")
        if not name or "/" in name or name.startswith((".", '"')) or facts.get("type") not in ("b", "i", "h"):
            raise errors.ComponentUnavailable(f"redis: its append-only manifest has a line that is none: {line[:80]!r}")
        if facts["type"] != "h":
            names.append(name)
    return names


def transferred(plan: RedisPlan, password: str | None, scratch: str | None) -> IO[bytes]:
    """Given the plan and the password, have the server send its dump, as to a replica that begins; return the file.

    The server saves for it, after the request came, so everything that was answered before is in it; redis-cli fails
    where the end that the server announced does not come. Raise ComponentUnavailable, ToolMissing.
    """
    words = ["redis-cli", "-u", plan.url, "--no-auth-warning", *cli_options(plan)]
    environment = {**os.environ, **({"REDISCLI_AUTH": password} if password else {})}
    with tempfile.TemporaryDirectory(prefix="kumodr-redis-", dir=scratch) as folder:
        path = os.path.join(folder, "dump.rdb")
        answer = run([*words, "--rdb", path], limit=plan.timeout, environment=environment)
        if answer.code or not os.path.exists(path):
            reason = " ".join(answer.err.decode(errors="replace").split())[-200:]
            raise errors.ComponentUnavailable(f"redis at {plan.url} does not send its dump: {reason}")
        return open(path, "rb")
