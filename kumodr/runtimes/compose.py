"""The services of a compose project, by `docker compose` or docker-compose 1.29, whichever is there.

The compose tool reads the project and makes containers; everything else is asked of `docker` by the labels that both
generations put on containers. So kumodr never has to agree with the tool on a container's name.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import monotonic, sleep
from typing import IO, Any

from kumodr import errors
from kumodr.runtimes import host
from kumodr.runtimes.commands import Answer, Runner, run
from kumodr.runtimes.docker_errors import named
from kumodr.runtimes.endings import explained
from kumodr.runtimes.protocol import Definition, Image, State, Stopped, Usage

_QUICK = 60.0
_SLOW = 600.0
_SETTLE = 1.0
_PATIENCE = 300
"""Seconds for a service that has to go where no patience is said, as in KumoMTA's unit."""
_KILLED = 137
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True)
class Project:
    """A compose project: its folder (with `.env`), its files (none: as the tool finds them)."""

    directory: Path
    files: tuple[Path, ...] = ()
    profiles: tuple[str, ...] = ()
    name: str | None = None


class ComposeRuntime:
    """The services of a compose project."""

    def __init__(
        self,
        project: Project,
        *,
        say: Callable[[str], None],
        runner: Runner = run,
        now: Callable[[], float] = monotonic,
        pause: Callable[[float], None] = sleep,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._project, self._say, self._run, self._now, self._pause = project, say, runner, now, pause
        self._environment = dict(os.environ if environment is None else environment)
        self._words: list[str] | None = None
        self._known_name: str | None = None

    def of(self, project: Project) -> "ComposeRuntime":
        """Return the runtime of another project, or of this one with other files, by the same tool."""
        other = ComposeRuntime(
            project, say=self._say, runner=self._run, now=self._now, pause=self._pause, environment=self._environment
        )
        other._words = self._words
        return other

    def config(self) -> bytes:
        """Return the whole project as the compose tool understands it, in YAML. It may hold secrets."""
        answer = self._tool(["config"], limit=_QUICK)
        return answer.out

    def command(self) -> list[str]:
        """Return the words that call the compose tool for this project, up to its verb."""
        tool, name = self._tool_and_name()
        options: list[str] = []
        for file in self._project.files:
            options += ["-f", str(file)]
        for profile in self._project.profiles:
            options += ["--profile", profile]
        return [*tool, "-p", name, *options]

    def services(self) -> tuple[str, ...]:
        return tuple(self._tool(["config", "--services"], limit=_QUICK).out.decode().split())

    def start(self, service: str) -> None:
        self._begin(service, ["--no-recreate", service])

    def renew(self, service: str) -> None:
        """Start a service, made anew where its definition changed, and see that it stays up. Raise as `start` does."""
        self._begin(service, [service])

    def up(self, services: Sequence[str], *, started: bool = True) -> None:
        """Create several services at once and start them; one that runs stays as it is. Raise ServiceFailed."""
        how = ["-d", "--no-deps"] if started else ["--no-start"]
        words = ["up", *how, "--no-recreate", *services]
        answer = self._tool(words, limit=_SLOW, judge=False)
        if answer.code:
            raise named((answer.out + answer.err).decode(errors="replace"), " and ".join(services) or "the project")

    def remove(self, *, keep: Sequence[str] = (), volumes: bool) -> None:
        """Remove the project's containers at once, but for services to keep; its networks where none is kept.

        Volumes go with everything in them. The project's files are not needed: all of it says whose it is.
        """
        _, project = self._tool_and_name()
        label = f"--filter=label=com.docker.compose.project={project}"
        shown = ['--format={{.ID}} {{.Label "com.docker.compose.service"}}']
        lines = self._docker(["ps", "-a", label, *shown], "the project", limit=_QUICK).out.decode().splitlines()
        ids = [line.split()[0] for line in lines if line.partition(" ")[2] not in keep]
        if ids:
            self._docker(["rm", "--force", *ids], "the project", limit=_SLOW)
        for kind in (("network",) if not keep else ()) + (("volume",) if volumes else ()):
            found = self._docker([kind, "ls", "-q", label], kind, limit=_QUICK).out.decode().split()
            if found:
                self._docker([kind, "rm", *found], f"the project's {kind}s", limit=_SLOW)

    def volume(self, name: str) -> str:
        """Given a volume's name in the compose file, return what Docker calls it."""
        return f"{self._tool_and_name()[1]}_{name}"

    def stop(self, service: str, *, patience: float) -> Stopped:
        began = self._now()
        running = [each for each in self._containers(service) if self._up(each)]
        if not running:
            return Stopped("not running", 0.0)
        self._say(f"waiting up to {patience:g} s for {service} to finish what it does and end by itself")
        limit = patience + _QUICK
        self._docker(["stop", f"--time={max(1, round(patience))}", *_ids(running)], service, limit=limit)
        after = self._inspect(_ids(running), service)
        killed = any(each["State"]["ExitCode"] == _KILLED for each in after)
        return Stopped("killed" if killed else "by itself", self._now() - began)

    def kill(self, service: str) -> None:
        running = [each for each in self._containers(service) if self._up(each)]
        if running:
            # `docker kill` alone would have a restart policy bring it back; `stop` without patience does not.
            self._docker(["stop", "--time=0", *_ids(running)], service, limit=_QUICK)

    def state(self, service: str) -> State:
        containers = self._containers(service)
        if not containers:
            return State(False, "not created")
        first = next((each for each in containers if self._up(each)), containers[0])
        facts, up = first["State"], self._up(first)
        code = None if up else int(facts["ExitCode"])
        return State(up, str(facts["Status"]), facts["Pid"] or None, code, int(first["RestartCount"]))

    def exec(
        self,
        service: str,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        limit: float = 60,
        output: IO[bytes] | None = None,
    ) -> Answer:
        container = self._running(service)["Id"]
        return self._call(["docker", "exec", "-i", container, *command], limit=limit, stdin=stdin, output=output)

    def host_path(self, service: str, path: str) -> Path | None:
        """By the container's mounts, volumes among them, where the daemon is this host's own."""
        if not self._environment.get("DOCKER_HOST", "unix://").startswith("unix://"):
            return None
        inside, best = PurePosixPath(path), ("", "")
        for mount in self._running(service)["Mounts"]:
            place = str(mount["Destination"])
            if mount["Source"] and inside.is_relative_to(place) and len(place) > len(best[0]):
                best = place, str(mount["Source"])
        return host.there(Path(best[1]) / inside.relative_to(best[0])) if best[0] else None

    def copy_in(self, service: str, source: Path, target: str) -> None:
        self._docker(["cp", str(source.absolute()), f"{self._running(service)['Id']}:{target}"], service, limit=_SLOW)

    def copy_out(self, service: str, source: str, target: Path) -> None:
        host.must_be_new(target)
        self._docker(["cp", f"{self._running(service)['Id']}:{source}", str(target.absolute())], service, limit=_SLOW)

    def environment(self, service: str) -> Mapping[str, str]:
        words: list[str] = self._running(service)["Config"]["Env"] or []
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def environment_to_be(self, service: str) -> Mapping[str, str]:
        """Return the variables of a service's container, whether it runs or was only created. They hold secrets."""
        containers = self._containers(service)
        words: list[str] = (containers[0]["Config"]["Env"] or []) if containers else []
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def tool(self) -> list[str]:
        """Return the words that call the compose tool."""
        return self._tool_and_name()[0]

    def logs(self, service: str, *, lines: int = 100) -> str:
        texts: list[str] = []
        for each in self._containers(service):
            answer = self._docker(["logs", f"--tail={lines}", each["Id"]], service, limit=_QUICK)
            texts.append((answer.out + answer.err).decode(errors="replace"))
        return "\n".join(texts)

    def scale(self, service: str, count: int) -> None:
        self._known(service)
        self._say(f"waiting up to {_PATIENCE} s for each {service} that is too many to end by itself")
        self._up_again(["--no-recreate", "--scale", f"{service}={count}", service], service)

    def usage(self, service: str) -> Usage:
        container = self._running(service)["Id"]
        answer = self._docker(["stats", "--no-stream", "--format={{json .}}", container], service, limit=_QUICK)
        facts = json.loads(answer.out)
        found = re.match(r"([0-9.]+)([KMGT]?i?B)", facts["MemUsage"])
        if found is None:
            raise errors.ServiceFailed(f"Docker gives no memory use of {service}")
        return Usage(int(float(found[1]) * _UNITS[found[2]]), int(facts["PIDs"]))

    def digest(self, service: str) -> str:
        return str(self._running(service)["Image"])

    def image(self, service: str) -> Image:
        containers = self._containers(service)
        running = next((each for each in containers if self._up(each)), containers[0] if containers else None)
        name = str(running["Config"]["Image"]) if running else self._image_name(service)
        answer = self._call(["docker", "image", "inspect", running["Image"] if running else name], limit=_QUICK)
        if answer.code and b"no such image" in answer.err.lower():
            return Image(name, None)
        if answer.code:
            raise named(answer.err.decode(errors="replace"), service)
        facts = json.loads(answer.out)[0]
        tags, digests = tuple(facts["RepoTags"] or ()), tuple(facts["RepoDigests"] or ())
        return Image(name, facts["Id"], tags, digests, tuple(facts["RootFS"].get("Layers") or ()))

    def _image_name(self, service: str) -> str:
        """The image that a service without a container would run; one that is built has the name of both."""
        import yaml

        tool, project = self._tool_and_name()
        services: dict[str, dict[str, Any]] = yaml.safe_load(self.config())["services"]
        between = "-" if tool[0] == "docker" else "_"
        return str(services[service].get("image") or f"{project}{between}{service}")

    def definition(self) -> Definition:
        from kumodr.runtimes.compose_files import definition_of

        project, resolved = self._project, self.config()
        folder = (project.directory / project.files[0]).parent if project.files else project.directory
        files = [project.directory / each for each in project.files]
        return definition_of(folder, files, resolved, self._environment)

    def _begin(self, service: str, words: Sequence[str]) -> None:
        self._known(service)
        # Docker counts from none again where it is started by hand, so restarts of earlier days are told from new ones.
        before = {each["Id"]: each["RestartCount"] for each in self._containers(service) if self._up(each)}
        self._up_again(words, service)
        began = self._now()
        while self._now() - began < _SETTLE:
            self._must_be_up(service, before)
            self._pause(0.1)

    def _up_again(self, words: Sequence[str], service: str) -> None:
        """Let the compose tool bring a service to what it should be. Without a word it kills after ten seconds."""
        command = ["up", "-d", "--no-deps", "--timeout", str(_PATIENCE), *words]
        answer = self._tool(command, limit=_SLOW + _PATIENCE, judge=False)
        if answer.code:
            raise named((answer.out + answer.err).decode(errors="replace"), service)

    def _must_be_up(self, service: str, before: Mapping[str, int]) -> None:
        """Given the restarts of each container that was up before, raise where a service ends or ended."""
        containers = self._containers(service)
        loops = any(
            each["State"]["Restarting"] or each["RestartCount"] > before.get(each["Id"], 0) for each in containers
        )
        if loops or not any(self._up(each) for each in containers):
            raise explained(self.logs(service, lines=10), service) or self._early_end(containers, service, loops=loops)

    def _early_end(self, containers: Sequence[dict[str, Any]], service: str, *, loops: bool) -> errors.KumodrError:
        if loops:
            return errors.ServiceRestarts(f"{service} ends and is restarted in a loop")
        code = containers[0]["State"]["ExitCode"] if containers else "unknown"
        return errors.ServiceFailed(f"{service} ended as soon as it was started, with exit code {code}")

    def _running(self, service: str) -> dict[str, Any]:
        for each in self._containers(service):
            if self._up(each):
                return each
        raise errors.ServiceFailed(f"{service} does not run", remedy="start it")

    def _containers(self, service: str) -> list[dict[str, Any]]:
        _, project = self._tool_and_name()
        labels = {"project": project, "service": service, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        ids = self._docker(["ps", "-aq", "--no-trunc", *filters], service, limit=_QUICK).out.decode().split()
        if not ids:
            self._known(service)
            return []
        return self._inspect(ids, service)

    def _inspect(self, ids: Sequence[str], service: str) -> list[dict[str, Any]]:
        return json.loads(self._docker(["inspect", *ids], service, limit=_QUICK).out)

    def _up(self, container: dict[str, Any]) -> bool:
        return bool(container["State"]["Running"]) and not container["State"]["Restarting"]

    def _known(self, service: str) -> None:
        if service not in self.services():
            raise errors.ServiceMissing(f"the compose project in {self._project.directory} has no service {service!r}")

    def _docker(self, words: Sequence[str], service: str, *, limit: float) -> Answer:
        answer = self._call(["docker", *words], limit=limit)
        if answer.code:
            raise named(answer.err.decode(errors="replace"), service)
        return answer

    def _tool(self, words: Sequence[str], *, limit: float, judge: bool = True) -> Answer:
        """Run the compose tool. What `config` refuses is the file's fault unless Docker itself is in the way."""
        answer = self._call([*self.command(), *words], limit=limit)
        if judge and answer.code:
            text = answer.err.decode(errors="replace").strip()
            reason = " ".join(text.split())[:300] or "no reason given"
            raise errors.ComposeInvalid(f"the compose project in {self._project.directory} cannot be read: {reason}")
        return answer

    def _tool_and_name(self) -> tuple[list[str], str]:
        if self._words is None:
            self._words = self._compose()
        if self._known_name is None:
            self._known_name = self._name(self._words)
        return self._words, self._known_name

    def _compose(self) -> list[str]:
        try:
            answer = self._call(["docker", "compose", "version", "--short"], limit=_QUICK)
            if answer.code == 0:
                return ["docker", "compose"]
            answer = self._call(["docker-compose", "version", "--short"], limit=_QUICK)
        except errors.ToolMissing as error:
            raise errors.DockerAbsent(error.what) from error
        if answer.code:
            raise errors.DockerAbsent("neither `docker compose` nor docker-compose works here")
        return ["docker-compose"]

    def _name(self, tool: Sequence[str]) -> str:
        """The project's name as both generations choose it: given, environment, `.env`, `name:`, the folder.

        The folder is that of the first file, where files are given. The newer tool takes marks off the beginning.
        """
        project = self._project
        folder = (project.directory / project.files[0]).parent if project.files else project.directory
        given = project.name or self._environment.get("COMPOSE_PROJECT_NAME")
        name = given or _in_dotenv(folder / ".env") or _in_file(project) or folder.resolve().name
        plain = re.sub(r"[^-_a-z0-9]", "", name.lower())
        return plain.lstrip("-_") if tool[0] == "docker" else plain

    def _call(
        self, command: Sequence[str], *, limit: float, stdin: bytes = b"", output: IO[bytes] | None = None
    ) -> Answer:
        directory, environment = self._project.directory, self._environment
        return self._run(command, limit=limit, stdin=stdin, directory=directory, environment=environment, output=output)


def _ids(containers: Sequence[dict[str, Any]]) -> list[str]:
    return [str(each["Id"]) for each in containers]


def _in_dotenv(file: Path) -> str | None:
    found = re.findall(r"^\s*COMPOSE_PROJECT_NAME\s*=\s*[\"']?([^\s\"'#]+)", _text(file), re.MULTILINE)
    return found[-1] if found else None


def _in_file(project: Project) -> str | None:
    usual = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
    for file in project.files or [Path(each) for each in usual]:
        found = re.search(r"^name:\s*[\"']?([-\w]+)", _text(project.directory / file), re.MULTILINE)
        if found:
            return found[1]
    return None


def _text(file: Path) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read(1 << 20)
    except OSError:
        return ""
