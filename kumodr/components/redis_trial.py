"""Try restored Redis data on a scratch server: a process without a network, in a folder of its own."""

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors

_POLL = 0.02
_LIMIT = 600.0


@dataclass(frozen=True)
class Trial:
    """The keys that a server loaded, None where it did not load; bytes at the end that it left out as a cut command."""

    keys: int | None
    left_out: int = 0


def try_dump(dump: Path) -> Trial:
    """Given a dump, have a server load it. Raise ToolMissing."""
    with tempfile.TemporaryDirectory(prefix="kumodr-redis-") as folder:
        os.symlink(dump.resolve(), os.path.join(folder, "dump.rdb"))
        return Trial(_loaded(folder))


def try_append_only(parts: Path, name: str) -> Trial:
    """Given the folder with a manifest and what it names, have a server load them. Raise ToolMissing.

    A server appends to the last of them and cuts what is half; so that one is copied, and the others are links.
    """
    with tempfile.TemporaryDirectory(prefix="kumodr-redis-", dir=parts.parent) as folder:
        inner = Path(folder) / "appendonlydir"
        inner.mkdir()
        increments = sorted(parts.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
        copied = {parts / f"{name}.manifest", *increments[-1:]}
        for path in parts.iterdir():
            if path in copied:
                shutil.copyfile(path, inner / path.name)
            else:
                os.symlink(path.resolve(), inner / path.name)
        keys = _loaded(
            folder, "--appendonly", "yes", "--appendfilename", name, "--auto-aof-rewrite-percentage", "0",
            "--aof-load-truncated", "yes",
        )  # fmt: skip
        last = increments[-1].name if increments else None
        left_out = (parts / last).stat().st_size - (inner / last).stat().st_size if last else 0
        return Trial(keys, left_out)


def _loaded(folder: str, *options: str) -> int | None:
    if shutil.which("redis-server") is None:
        raise errors.ToolMissing("redis-server is not on this machine, so the Redis data cannot be tried")
    import redis

    from kumodr.components.redis_commands import Refused, keys, of_server

    with tempfile.TemporaryDirectory(prefix="kumodr-redis-") as short, open(os.path.join(folder, "log"), "wb") as log:
        socket = os.path.join(short, "s")
        words = ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", *options]
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        server = redis.Redis(unix_socket_path=socket, protocol=2)
        try:
            deadline = time.monotonic() + _LIMIT
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    server.ping()
                    return keys(of_server(server))
                except (redis.RedisError, Refused):
                    time.sleep(_POLL)
            return None
        finally:
            server.close()
            process.kill()
            process.wait()
