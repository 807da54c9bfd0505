"""Redis as a component: its own dump, made by BGSAVE, awaited and checked, and its append-only files, if any."""

import os
import stat
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding, Verdict
from kumodr.components.redis_commands import Commands, Refused, information, inside, keys, network, setting
from kumodr.components.redis_files import Opener, append_only, opener_here, opener_inside, transferred
from kumodr.plan.model import Plan, RedisPlan
from kumodr.runtimes.protocol import Runtime
from kumodr.source import Capture, CaptureFacts, Held, Pinned, SourceFile, identity_of

DUMP = "dump.rdb"
APPEND_ONLY = "appendonlydir"
_POLL = 0.02


@dataclass(frozen=True)
class _Place:
    """Where the server keeps its files, as it sees them; `folder` is None before version 7."""

    directory: str
    dump: str
    appends: bool
    folder: str | None
    name: str

    @staticmethod
    def of(server: Commands) -> "_Place":
        directory = setting(server, "dir") or "."
        return _Place(
            directory,
            f"{directory}/{setting(server, 'dbfilename')}",
            setting(server, "appendonly") == "yes",
            setting(server, "appenddirname"),
            setting(server, "appendfilename") or "appendonly.aof",
        )


class RedisComponent:
    """One Redis server: `dump.rdb`, and below `appendonlydir` what it loads instead where it is append-only.

    A server that is append-only does not look at a dump when it starts, so both are stored.
    """

    name = "redis"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._whole = plan
        self._plan: RedisPlan = plan.components.redis or RedisPlan("")

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Have the server save in the background, wait for it, and hold its files open.

        Redis writes a dump beside and renames it, so an open descriptor is one whole dump whatever comes after; that it
        is the one just made is seen by it being another file than before. For the append-only files see
        `redis_files.py`. Raise ComponentUnavailable where the server, the save or the files cannot be had.
        """
        if self._plan.through == "transfer":
            with self._transferred() as capture:
                yield capture
            return
        with ExitStack() as stack:
            with self._commands() as server:
                place = _Place.of(server)
                open_file, itself = self._opener(stack, place)
                before = _identity(open_file, place.dump) if itself else None
                info = self._saved(server)
                dump = _opened(open_file, place.dump)
                if before is not None and _identity_of(dump) == before:
                    raise errors.ComponentUnavailable(
                        f"redis: the dump {place.dump} that is read here is not the one that the server writes",
                        remedy="correct components.redis.data in kumodr.yaml",
                    )
                append = append_only(open_file, place.directory, place.folder, place.name) if place.appends else ()
                facts = {"keys": keys(server), "server": info.get("redis_version", "?")}
            files = [_file(DUMP, dump, os.fstat(dump).st_size)]
            for part in append:
                name = part.name.rpartition("/")[2]
                files.append(_file(f"{APPEND_ONLY}/{name}" if place.folder else name, part.descriptor, part.size))
            sizes = {
                "dump_bytes": files[0].size,
                "append_only_files": len(append),
                "append_only_bytes": sum(part.size for part in append),
            }
            sealed = {"directory": place.directory, "dump": place.dump, "append_only": place.name if append else None}
            yield Capture(files=files, facts=lambda: CaptureFacts({**facts, **sizes}, sealed))

    @contextmanager
    def _transferred(self) -> Generator[Capture]:
        """Give the dump that the server sends. An append-only server would not look at it, so it is stored once more
        as what such a server begins with: the base of its append-only files, which is a dump, and their manifest.
        """
        with self._commands() as server:
            facts = {"keys": keys(server), "server": information(server, "server").get("redis_version", "?")}
            place = _Place.of(server)
        scratch = self._whole.state if Path(self._whole.state).is_dir() else None
        with transferred(self._plan, self._password(), scratch) as file:
            size = os.fstat(file.fileno()).st_size
            files = [_file(DUMP, file.fileno(), size)]
            if place.appends and place.folder:
                base = f"{place.name}.1.base.rdb"
                manifest = f"file {base} seq 1 type b\n".encode()
                files.append(_file(f"{APPEND_ONLY}/{base}", file.fileno(), size))
                name = f"{APPEND_ONLY}/{place.name}.manifest"
                files.append(SourceFile(name, size=len(manifest), content=Held(manifest)))
            sizes = {
                "dump_bytes": size,
                "append_only_files": len(files) - 1,
                "append_only_bytes": sum(each.size for each in files[1:]),
            }
            sealed = {"directory": place.directory, "dump": place.dump, "append_only": place.name}
            yield Capture(files=files, facts=lambda: CaptureFacts({**facts, **sizes}, sealed))

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/redis`, have scratch servers without a network load the dump, and the append-only files."""
        from kumodr.components.redis_trial import try_append_only, try_dump

        parts = [*restored.glob(f"{APPEND_ONLY}/*")]
        of_before = [each for each in restored.iterdir() if each.name != DUMP and each.is_file()]
        facts: dict[str, int] = {"dump_bytes": (restored / DUMP).stat().st_size}
        facts |= {
            "append_only_files": len(parts) + len(of_before),
            "append_only_bytes": sum(each.stat().st_size for each in (*parts, *of_before)),
        }
        tried = try_dump(restored / DUMP)
        if tried.keys is None:
            return Verdict("a Redis server does not load the dump")
        facts["loaded"] = tried.keys
        if not parts:
            return Verdict(None, facts)
        manifests = [each.name.removesuffix(".manifest") for each in parts if each.name.endswith(".manifest")]
        if len(manifests) != 1:
            return Verdict("the append-only files lack their manifest")
        tried = try_append_only(restored / APPEND_ONLY, manifests[0])
        if tried.keys is None:
            return Verdict("a Redis server does not load the append-only files")
        facts["loaded_from_append_only"] = tried.keys
        cut = f"the append-only files end in {tried.left_out} bytes of a command that was being written; Redis drops it"
        return Verdict(None, facts, (cut,) if tried.left_out else ())

    def health(self) -> tuple[Finding, ...]:
        """Say whether the server answers, keeps its data, and its files can be read."""
        transfers = self._plan.through == "transfer"
        try:
            with ExitStack() as stack, self._commands() as server:
                info = information(server, "persistence")
                save = setting(server, "save")
                place = _Place.of(server)
                open_file, itself = (None, False) if transfers else self._opener(stack, place)
                unreadable = None
                try:
                    if open_file and itself:
                        _identity(open_file, place.dump)
                    if open_file and place.appends and itself:
                        append_only(open_file, place.directory, place.folder, place.name)
                except errors.ComponentUnavailable as error:
                    unreadable = error
        except errors.KumodrError as error:
            return (Finding("bad", error.what, error.remedy),)
        found = [Finding("good", "redis answers")]
        if info.get("rdb_last_bgsave_status") != "ok":
            found.append(Finding("bad", "redis: its last background save failed", "look into Redis's log"))
        if not save and not place.appends:
            text = "redis keeps nothing over a restart"
            found.append(Finding("warning", text, "set `appendonly yes` or `save` in its configuration"))
        if unreadable is not None:
            found.append(Finding("bad", unreadable.what, unreadable.remedy))
        return tuple(found)

    @contextmanager
    def _commands(self) -> Generator[Commands]:
        if self._plan.through == "exec":
            runtime, service = self._runtime(), self._whole.runtime.redis or ""
            if runtime is None:
                raise errors.RuntimeUnknown("redis is to be asked inside its container, and the plan names no runtime")
            with _as_unavailable(), inside(self._plan, self._password(), runtime, service) as commands:
                yield commands
        else:
            with _as_unavailable(), network(self._plan, self._password()) as commands:
                yield commands

    def _runtime(self) -> Runtime | None:
        if self._whole.runtime.kind == "none" or not self._whole.runtime.redis:
            return None
        from kumodr.runtimes.opening import runtime_of

        return runtime_of(self._whole, say=lambda _text: None)

    def _opener(self, stack: ExitStack, place: _Place) -> tuple[Opener, bool]:
        """Return how the server's files are opened, and whether those are the files themselves, not copies.

        They are looked for where the plan says, where the runtime says, and where the server says; in this order.
        """
        runtime, service = self._runtime(), self._whole.runtime.redis
        if self._plan.data or runtime is None or service is None:
            return opener_here(stack, place.directory, Path(self._plan.data or place.directory)), True
        here = runtime.host_path(service, place.directory)
        if here is not None:
            return opener_here(stack, place.directory, here), True
        scratch = self._whole.state if Path(self._whole.state).is_dir() else None
        return opener_inside(stack, runtime, service, scratch), False

    def _password(self) -> str | None:
        if self._plan.password_file:
            try:
                return Path(self._plan.password_file).read_text().strip()
            except OSError as error:
                raise errors.FileUnreadable(
                    f"the Redis password file {self._plan.password_file} cannot be read: {error.strerror}"
                ) from error
        return os.environ.get(self._plan.password_env) if self._plan.password_env else None

    def _saved(self, server: Commands) -> Mapping[str, str]:
        """Have a save begin after now, wait for its end, and return the server's INFO.

        BGSAVE answers when the save has forked, so the first INFO without a save in progress is of after this one;
        LASTSAVE, in whole seconds, must not be before it. While the append-only files are rewritten Redis takes no
        other save: that is waited for.
        """
        deadline = time.monotonic() + self._plan.timeout
        while True:
            try:
                begun = int(server.ask("TIME").splitlines()[0])
                server.ask("BGSAVE")
                break
            except Refused as error:
                busy = "in progress" in str(error).lower() or "can't BGSAVE right now" in str(error)
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
        while time.monotonic() < deadline:
            info = information(server, "persistence")
            if info["rdb_bgsave_in_progress"] == "0":
                if info["rdb_last_bgsave_status"] != "ok" or int(info["rdb_last_save_time"]) < begun:
                    raise errors.ComponentUnavailable(
                        f"redis at {self._plan.url} cannot save its data",
                        remedy="look into Redis's log: disk or memory",
                    )
                return information(server, "server")
            time.sleep(_POLL)
        raise errors.ComponentUnavailable(
            f"redis at {self._plan.url} did not end its save in {self._plan.timeout:.0f} s",
            remedy="raise components.redis.timeout in kumodr.yaml",
        )


def _opened(open_file: Opener, path: str) -> int:
    try:
        return open_file(path)
    except FileNotFoundError as error:
        raise errors.ComponentUnavailable(
            f"redis: the dump {path} is not there",
            remedy="correct components.redis.data in kumodr.yaml, or name its service in runtime.redis",
        ) from error


def _identity(open_file: Opener, path: str) -> tuple[int, ...] | None:
    """Return which file a dump is now, held open, so that no other one can get its number; None where there is none."""
    try:
        return _identity_of(open_file(path))
    except FileNotFoundError:
        return None


def _identity_of(descriptor: int) -> tuple[int, ...]:
    return identity_of(os.fstat(descriptor))[:2]


def _file(path: str, descriptor: int, size: int) -> SourceFile:
    status = os.fstat(descriptor)
    return SourceFile(
        path=path,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=size,
        content=Pinned(descriptor),
    )


@contextmanager
def _as_unavailable() -> Generator[None]:
    """A runtime that is in the way costs Redis its copy, and nothing else."""
    try:
        yield
    except (errors.ComponentUnavailable, errors.FileUnreadable):
        raise
    except errors.KumodrError as error:
        raise errors.ComponentUnavailable(f"redis: {error.what}", remedy=error.remedy) from error
