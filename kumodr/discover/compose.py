"""A mail site that is a compose project: where what its containers see lies on this host."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from kumodr import errors
from kumodr.components.protocol import Finding
from kumodr.discover import recognise, risks
from kumodr.discover.compose_files import configuration
from kumodr.discover.compose_services import Composed, Service, read_project
from kumodr.discover.mounts import located, mount_of
from kumodr.discover.redis_settings import redis_settings
from kumodr.discover.site import ANYWHERE, NODE_ID, POLICY, Located, Server, Site, reach_here
from kumodr.discover.textfile import read_text
from kumodr.runtimes.commands import Runner, run
from kumodr.runtimes.compose import ComposeRuntime, Project
from kumodr.runtimes.docker_errors import named

_LIMIT = 60.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PROMETHEUS = "/prometheus"


def look_at_compose(
    project: Project,
    *,
    service: str | None,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    runner: Runner = run,
) -> Site:
    """Given a project and the service that is KumoMTA (None: find it), return the site. Nothing is started.

    Raise DockerAbsent, DockerStopped, DockerForbidden, ComposeInvalid, ServiceMissing.
    """
    remote = urlsplit(environment.get("DOCKER_HOST", ""))
    if remote.scheme not in ("", "unix"):
        raise errors.UsageWrong(
            f"DOCKER_HOST is {remote.scheme}://…: the containers run on another machine",
            remedy="run `kumodr init` there, where their files are",
        )
    runtime = ComposeRuntime(project, say=say, runner=runner, environment=environment)
    where = f"the compose project in {project.directory}"
    composed = read_project(runtime.config(), where)
    return _Look(project, runtime, composed, runner, environment, where).site(service)


class _Look:
    def __init__(
        self,
        project: Project,
        runtime: ComposeRuntime,
        composed: Composed,
        runner: Runner,
        environment: Mapping[str, str],
        where: str,
    ) -> None:
        self._project, self._runtime, self._composed, self._run = project, runtime, composed, runner
        self._environment, self._where = environment, where
        self._volumes: dict[str, Path | None] = {}
        self._uncovered: list[str] = []
        self._risks: list[Finding | None] = []

    def site(self, asked: str | None) -> Site:
        services = [each for each in self._composed.services if not recognise.is_kumodr(each) and self._on(each)]
        kumod = recognise.kumod_of(services, asked, self._where)
        beside = [each for each in services if each is not kumod]
        redis, prometheus = self._one("Redis", recognise.redis_of(beside)), self._prometheus_service(beside)
        variables = self._variables(kumod)
        named_others = {each.name for each in (kumod, redis, prometheus) if each}
        found = {
            "kind": "compose",
            "directory": str(self._project.directory),
            "files": [str(each) for each in self._project.files],
            "profiles": list(self._project.profiles),
            "project": self._project.name,
            "kumod": kumod.name,
            "redis": redis.name if redis else None,
            "prometheus": prometheus.name if prometheus else None,
            "others": [each.name for each in services if each.name not in named_others],
        }
        redis_server = self._redis(redis) if redis else None
        prometheus_server = self._prometheus(prometheus) if prometheus else None
        self._node_id(kumod, variables)
        return Site(
            source=self._where,
            runtime={name: value for name, value in found.items() if value},
            policy=_policy_of(kumod, variables),
            environment=variables,
            locate=lambda inside: self._locate(kumod, inside),
            reach=lambda address: self._reach(kumod, address),
            configuration=lambda live: configuration(self._project, services, kumod.name, live, self._volume),
            redis=redis_server,
            prometheus=prometheus_server,
            uncovered=tuple(self._uncovered),
            risks=tuple(each for each in self._risks if each is not None),
        )

    def _on(self, service: Service) -> bool:
        """Whether a service is part of the project with the profiles that are on; say it where it is not."""
        on = {"*", *service.profiles} & set(self._project.profiles)
        if service.profiles and not on:
            profile = service.profiles[0]
            self._uncovered.append(f"{service.name}: its profile is not on; --profile {profile} covers it")
        return bool(on) or not service.profiles

    def _one(self, what: str, found: tuple[Service, ...]) -> Service | None:
        self._uncovered += [f"{each.name}: it is {what} too, and a plan covers one" for each in found[1:]]
        return found[0] if found else None

    def _prometheus_service(self, services: list[Service]) -> Service | None:
        return self._one("Prometheus", recognise.prometheus_of(services))

    def _variables(self, kumod: Service) -> Mapping[str, str]:
        """Return the environment of the running container; else what the project says, and that the rest is missing."""
        if self._runtime.state(kumod.name).running:
            return self._runtime.environment(kumod.name)
        text = f"{kumod.name} does not run: what its image sets in the environment is not known"
        self._risks.append(Finding("warning", text, "start it, then run `kumodr init` again"))
        return kumod.environment

    def _locate(self, service: Service, inside: str) -> Located:
        return located(service.mounts, inside, service.name, self._volume)

    def _volume(self, key: str) -> Path | None:
        """Return the folder of a volume on this host, None where Docker has none of that name."""
        if key not in self._volumes:
            self._volumes[key] = self._asked(key)
        return self._volumes[key]

    def _asked(self, key: str) -> Path | None:
        volume = self._composed.volumes.get(key)
        if volume is not None and volume.device is not None:
            return Path(volume.device)
        name = volume.name if volume and volume.name else self._runtime.volume(key)
        command = ["docker", "volume", "inspect", "--format={{.Mountpoint}}", name]
        answer = self._run(command, limit=_LIMIT, environment=self._environment)
        if answer.code:
            text = answer.err.decode(errors="replace")
            if "no such volume" in text.lower():
                return None
            raise named(text, key)
        place = answer.out.decode(errors="replace").strip()
        return Path(place) if place.startswith("/") else None

    def _reach(self, service: Service, address: str) -> tuple[str | None, str]:
        """Return by which URL this host reaches what listens at an address inside a service, or None and the remedy."""
        if service.host_network:
            return reach_here(address)
        host, _, port = address.rpartition(":")
        published = next((each for each in service.ports if str(each[0]) == port), None)
        if published is None:
            return None, f'publish port {port} of {service.name}: `ports: ["127.0.0.1:{port}:{port}"]`'
        if host.strip("[]") in _LOOPBACK:
            return None, f"have {service.name} listen at {ANYWHERE}:{port}: {address} is inside its container only"
        return f"http://{published[1]}:{published[2]}", ""

    def _redis(self, service: Service) -> Server:
        def read(inside: str) -> str:
            place = self._locate(service, inside).path
            text, reason = read_text(place) if place else ("", "it is part of the image")
            if reason:
                self._uncovered.append(f"{inside} of {service.name} is not read: {reason}")
            return text

        settings = redis_settings(service.words, read)
        folder = settings.folder or "/data"
        mount = mount_of(service.mounts, folder)
        kept = mount is not None and mount.kind in ("bind", "volume") and bool(mount.source)
        self._risks.append(risks.redis_forgets(settings.save, settings.append_only, keeps_files=kept))
        url, _ = self._reach(service, f"{ANYWHERE}:{settings.port}")
        place = self._locate(service, folder).path
        return Server(
            url=url and f"redis://{urlsplit(url).netloc}",
            data=place,
            secret=settings.password,
            inside=f"redis://127.0.0.1:{settings.port}",
        )

    def _prometheus(self, service: Service) -> Server:
        flags = dict(_flag(word) for word in service.words if word.startswith("--"))
        folder = flags.get("storage.tsdb.path", f"{_PROMETHEUS}/data" if flags else _PROMETHEUS)
        folder = folder if folder.startswith("/") else f"{_PROMETHEUS}/{folder}"
        self._risks.append(risks.admin_closed("web.enable-admin-api" in flags))
        place = self._locate(service, folder)
        if place.risk is not None:
            self._risks.append(place.risk)
        url, reason = self._reach(service, flags.get("web.listen-address", f"{ANYWHERE}:9090"))
        if url is None:
            self._uncovered.append(f"prometheus: {reason}; until then its newest hours are not stored")
        return Server(url, place.path)

    def _node_id(self, kumod: Service, variables: Mapping[str, str]) -> None:
        """Say where the node id is lost with the container: its logs could not be told as one node's any more."""
        place = variables.get("KUMO_NODE_ID_PATH", NODE_ID)
        if "KUMO_NODE_ID" not in variables and self._locate(kumod, place).path is None:
            text = f"the node id of {kumod.name} ({place}) is on no volume: each new container is a new node"
            self._risks.append(Finding("warning", text, f"set KUMO_NODE_ID in the environment of {kumod.name}"))


def _policy_of(kumod: Service, variables: Mapping[str, str]) -> str:
    """Return where the policy is, as the service sees it: by its command, its environment, or the usual place."""
    words = " ".join(kumod.words)
    found = re.search(r"--policy[= ](\S+)", words)
    path = found[1] if found else variables.get("KUMO_POLICY", POLICY)
    return path if "$" not in path else variables.get("KUMO_POLICY", POLICY)


def _flag(word: str) -> tuple[str, str]:
    name, _, value = word.removeprefix("--").partition("=")
    return name, value
