"""Redis as a component: its own dump, made by BGSAVE, awaited and checked."""

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding, Verdict
from kumodr.plan.model import Plan, RedisPlan
from kumodr.source import Capture, CaptureFacts, Pinned, SourceFile

DUMP = "dump.rdb"
_POLL = 0.02
_START_LIMIT = 60.0


class RedisComponent:
    """One Redis server whose dump file this host can read."""

    name = "redis"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan: RedisPlan = plan.components.redis or RedisPlan("")
        self._clock = clock

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Have the server save in the background, wait for it, and hold the dump open.

        Redis writes a dump beside and renames it, so an open descriptor is one whole dump whatever comes after.
        Raise ComponentUnavailable where the server, the save or the file cannot be had.
        """
        with self._connection() as server:
            info = self._saved(server)
            path = self._dump_path(server)
            facts = {"keys": _keys(server), "server": str(info.get("redis_version", "?"))}
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise errors.ComponentUnavailable(
                f"redis: the dump {path} cannot be read: {error.strerror}",
                remedy="give kumodr read access to Redis's data directory",
            ) from error
        try:
            status = os.fstat(descriptor)
            file = SourceFile(
                path=DUMP,
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                mtime_ns=status.st_mtime_ns,
                size=status.st_size,
                content=Pinned(descriptor),
            )
            yield Capture(files=[file], facts=lambda: CaptureFacts({**facts, "dump_bytes": status.st_size}, {}))
        finally:
            os.close(descriptor)

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/redis`, load its dump into a scratch server without a network and count the keys."""
        if shutil.which("redis-server") is None:
            raise errors.ToolMissing("redis-server is not on this machine, so the Redis dump cannot be tried")
        import redis

        with tempfile.TemporaryDirectory(prefix="kumodr-redis-") as folder:
            os.symlink(restored.resolve() / DUMP, os.path.join(folder, DUMP))
            socket = os.path.join(folder, "s")
            with open(os.path.join(folder, "log"), "wb") as log:
                process = subprocess.Popen(
                    ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
            server = redis.Redis(unix_socket_path=socket)
            try:
                deadline = time.monotonic() + _START_LIMIT
                while time.monotonic() < deadline and process.poll() is None:
                    try:
                        server.ping()
                        return Verdict(None, {"dump_bytes": (restored / DUMP).stat().st_size, "loaded": _keys(server)})
                    except redis.RedisError:
                        time.sleep(_POLL)
                return Verdict("a Redis server does not load the dump")
            finally:
                server.close()
                process.kill()
                process.wait()

    def health(self) -> tuple[Finding, ...]:
        """Say whether the server answers, keeps its data, and its dump can be read."""
        try:
            with self._connection() as server:
                info: dict[str, Any] = server.info("persistence")
                path = self._dump_path(server)
                save = str(server.config_get("save").get("save", ""))
        except errors.KumodrError as error:
            return (Finding("bad", error.what, error.remedy),)
        found = [Finding("good", "redis answers")]
        if info.get("rdb_last_bgsave_status") != "ok":
            found.append(Finding("bad", "redis: its last background save failed", "look into Redis's log"))
        if not save and not info.get("aof_enabled"):
            found.append(
                Finding(
                    "warning",
                    "redis keeps nothing over a restart",
                    "set `appendonly yes` or `save` in its configuration",
                )
            )
        if not os.access(os.path.dirname(path), os.R_OK | os.X_OK):
            found.append(Finding("bad", f"redis: {path} cannot be read here", "give kumodr read access to it"))
        return tuple(found)

    @contextmanager
    def _connection(self) -> Generator[Any]:
        import redis

        try:
            server = redis.Redis.from_url(
                self._plan.url, password=self._password(), socket_timeout=self._plan.timeout, socket_connect_timeout=5
            )
            try:
                yield server
            finally:
                server.close()
        except (redis.RedisError, ValueError, OSError) as error:
            refused = isinstance(error, redis.AuthenticationError) or "NOAUTH" in str(error)
            reason = "the password is wrong or missing" if refused else _first_line(error)
            raise errors.ComponentUnavailable(f"redis at {self._plan.url} cannot be used: {reason}") from error

    def _password(self) -> str | None:
        if self._plan.password_file:
            try:
                return Path(self._plan.password_file).read_text().strip()
            except OSError as error:
                raise errors.FileUnreadable(
                    f"the Redis password file {self._plan.password_file} cannot be read: {error.strerror}"
                ) from error
        return os.environ.get(self._plan.password_env) if self._plan.password_env else None

    def _saved(self, server: Any) -> dict[str, Any]:
        """Have a save begin after now, wait for its end, and return the server's INFO.

        BGSAVE answers when the save has forked, so the first INFO without a save in progress is of after this one;
        LASTSAVE, in whole seconds, must not be before it.
        """
        import redis

        deadline = time.monotonic() + self._plan.timeout
        while True:
            try:
                begun = int(server.time()[0])
                server.bgsave()
                break
            except redis.ResponseError as error:
                if "in progress" not in str(error).lower() or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
        while time.monotonic() < deadline:
            info: dict[str, Any] = server.info()
            if not info["rdb_bgsave_in_progress"]:
                if info["rdb_last_bgsave_status"] != "ok" or int(info["rdb_last_save_time"]) < begun:
                    raise errors.ComponentUnavailable(
                        f"redis at {self._plan.url} cannot save its data",
                        remedy="look into Redis's log: disk or memory",
                    )
                return info
            time.sleep(_POLL)
        raise errors.ComponentUnavailable(
            f"redis at {self._plan.url} did not end its save in {self._plan.timeout:.0f} s",
            remedy="raise components.redis.timeout in kumodr.yaml",
        )

    def _dump_path(self, server: Any) -> str:
        directory = server.config_get("dir")["dir"]
        name = server.config_get("dbfilename")["dbfilename"]
        return os.path.join(str(directory), str(name))


def _keys(server: Any) -> int:
    return sum(int(database["keys"]) for database in server.info("keyspace").values())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
