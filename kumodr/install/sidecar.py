"""kumodr as a sidecar of a compose project: a file of its own that the compose tool merges, and a plan for inside.

Where the user has no override file, ours is the one that the tool merges by itself: a plain `up` starts the sidecar,
and `--remove-orphans`, which belongs to many a procedure, spares it. Otherwise it is a further file, to be named.

The sidecar is root without root's rights, as the units of systemd are: plain spool files are open to their owner only
(mode 0600), and owners' numbers differ from image to image. What is live is mounted read-only, so that the one right
that is left, to pass by modes, cannot write there. CAP_DAC_READ_SEARCH would be less, but lets a container open any
file of its host (open_by_handle_at).
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kumodr import errors
from kumodr.discover.compose_files import USUAL
from kumodr.discover.compose_services import Composed, read_project
from kumodr.install.inside import METRICS, plan_inside
from kumodr.install.installation import Command, Installation, Removal
from kumodr.install.marked import marked, standing
from kumodr.install.mounts import Mount, mounts_as_in, mounts_of, sources_of
from kumodr.install.places import paths_of, snapshots, written
from kumodr.plan.model import Plan
from kumodr.runtimes.commands import Runner
from kumodr.runtimes.compose import ComposeRuntime, Project
from kumodr.runtimes.docker_errors import named

SERVICE = "kumodr"
FOLDER = "kumodr-sidecar"
_SEPARATE = "docker-compose.kumodr.yml"
_PLAN_HEAD = (
    "# The plan of the sidecar, made from the host's: change that one and run `kumodr install sidecar` again.\n"
)
_INSIDE = "/etc/kumodr"
_OUT = "kumodr-out"
_LIMIT = 60.0


@dataclass(frozen=True)
class Site:
    """A compose project to put a sidecar into, its runtime, and what runs commands beside that."""

    project: Project
    runtime: ComposeRuntime
    runner: Runner


def sidecar(plan_file: Path, plan: Plan, site: Site, image: str, user: str | None = None) -> Installation:
    """Given the plan of a compose site, the image of kumodr and, where it is to be another than root, the user
    (`UID:GID`), who then needs no right but those of the files, return the sidecar.

    Raise SpoolMissing where the plan names no spool, ServiceMissing where the project has not the plan's services,
    InstallUnsafe where it has a service `kumodr` already, Docker's errors.
    """
    if plan.components.spool is None:
        raise errors.SpoolMissing("the plan names no spool, so there is nothing for `kumodr protect` to follow")
    config = site.runtime.config()
    composed = read_project(config, f"the compose project in {site.project.directory}")
    file, merged = _file(site.project)
    _must_fit(plan, composed, file, site.project)
    if user is not None and not re.fullmatch(r"\d{1,10}:\d{1,10}", user):
        raise errors.UsageWrong(f"--user {user!r} is no user of a container", remedy="give two numbers, UID:GID")
    folder = site.project.directory / FOLDER
    host_network = any(each.host_network for each in composed.services if each.name in _beside(plan))
    values = plan_inside(plan, composed, (plan_file, file, folder), host_network=host_network)
    mounts = _mounts(plan, plan_file, composed, site)
    text = marked(_PLAN_HEAD + yaml.safe_dump(values, sort_keys=False, width=120))
    service = _service(plan, image, user, mounts, folder, hashlib.sha256(text).hexdigest())
    networks = {} if host_network else _networks(yaml.safe_load(config), _beside(plan), plan)
    service |= {"network_mode": "host"} if host_network else {"networks": list(networks), "expose": [_port(values)]}
    document: dict[str, Any] = {"services": {SERVICE: service}}
    if _OUT in networks:
        document["networks"] = {_OUT: {}}
    head = "# kumodr beside the mail site: it reads what is live, and writes its vault and its state.\n"
    text_of_file = head + yaml.safe_dump(_escaped(document), sort_keys=False, width=120)
    whole = site.runtime.of(_with(site.project, None if merged else file))
    words = (*whole.command(), "up", "-d", "--no-deps", SERVICE)
    start = Command(words, site.project.directory, lambda: whole.renew(SERVICE))
    return Installation(
        files={folder / "kumodr.yaml": text, file: marked(text_of_file)},
        commands=(start,),
        undo="`kumodr install remove --apply` stops it and takes the files away; vault and state stay",
        folders=(Path(plan.state), _scratch(plan)),
        notes=tuple(_notes(plan, folder, None if merged else file, site.project)),
    )


def why_no_image(image: str, site: Site) -> errors.KumodrError | None:
    """Given an image's name, return what to raise where this Docker has none of that name."""
    answer = site.runner(["docker", "image", "inspect", "--format={{.Id}}", image], limit=_LIMIT)
    text = answer.err.decode(errors="replace")
    if answer.code == 0:
        return None
    if "no such image" in text.lower():
        return errors.ImageMissing(f"there is no image {image!r} on this machine")
    return named(text, image)


def removal(site: Site) -> Removal | None:
    """Given a project, return what takes our sidecar away, or None where there is none."""
    file, merged = _file(site.project)
    plan = site.project.directory / FOLDER / "kumodr.yaml"
    files = [each for each in (file, plan) if standing(each) not in ("new", "foreign")]
    if not files:
        return None
    whole = site.runtime.of(_with(site.project, None if merged else file))
    before = (Command((*whole.command(), "rm", "--stop", "--force", SERVICE), site.project.directory),)
    return Removal(before if file in files else (), tuple(files), folder=plan.parent)


def _file(project: Project) -> tuple[Path, bool]:
    """Return the file of the sidecar, and whether the compose tool merges it by itself."""
    base = next((name for name in USUAL if (project.directory / name).is_file()), None)
    separate = project.directory / _SEPARATE
    if base is None or project.files or standing(separate) not in ("new", "foreign"):
        return separate, False
    overrides = [project.directory / each.replace("compose.", "compose.override.") for each in (base, *USUAL)]
    if any(standing(each) == "foreign" for each in overrides):
        return separate, False
    return next((each for each in overrides if each.exists()), overrides[0]), True


def _with(project: Project, separate: Path | None) -> Project:
    """Return the project with the sidecar's file, which the tool finds by itself where None is given."""
    if separate is None:
        return project
    names = [name for name in USUAL if (project.directory / name).is_file()][:1]
    usual = [
        project.directory / each for name in names for each in (name, name.replace("compose.", "compose.override."))
    ]
    files = project.files or tuple(each for each in usual if each.is_file())
    return Project(project.directory, (*files, separate), project.profiles, project.name)


def _beside(plan: Plan) -> list[str]:
    runtime = plan.runtime
    return [each for each in (runtime.kumod, runtime.redis, runtime.prometheus) if each]


def _must_fit(plan: Plan, composed: Composed, file: Path, project: Project) -> None:
    names = [each.name for each in composed.services]
    for each in _beside(plan):
        if each not in names:
            raise errors.ServiceMissing(
                f"the compose project in {project.directory} has no service {each!r}",
                remedy="correct runtime in kumodr.yaml, or run `kumodr init` again",
            )
    if SERVICE in names and standing(file) == "new":
        raise errors.InstallUnsafe(f"the compose project in {project.directory} has a service {SERVICE!r} already")


def _mounts(plan: Plan, plan_file: Path, composed: Composed, site: Site) -> list[Mount]:
    def volume(key: str) -> Path | None:
        known = composed.volumes.get(key)
        if known is not None and known.device is not None:
            return Path(known.device)
        name = known.name if known and known.name else site.runtime.volume(key)
        answer = site.runner(["docker", "volume", "inspect", "--format={{.Mountpoint}}", name], limit=_LIMIT)
        return Path(answer.out.decode(errors="replace").strip()) if answer.code == 0 else None

    of_prometheus = snapshots(plan)
    write = [*written(plan), *([of_prometheus] if of_prometheus else [])]
    redis = plan.components.redis
    # Redis says where its files are as its own container sees it, so the sidecar sees them there.
    beside = [each for each in composed.services if redis and not redis.data and each.name == plan.runtime.redis]
    read = [*paths_of(plan.components), plan_file, site.project.directory]
    sources = sources_of(composed, site.project.directory, volume)
    found = mounts_of(sources, [each for each in read if each not in write], write)
    more = [mount for service in beside for mount in mounts_as_in(service)]
    return found + [mount for mount in more if mount.target not in {each.target for each in found}]


def _service(
    plan: Plan, image: str, user: str | None, mounts: list[Mount], folder: Path, digest: str
) -> dict[str, Any]:
    redis = plan.components.redis
    environment: dict[str, str | None] = {
        "XDG_CACHE_HOME": "/tmp",  # noqa: S108 — a tmpfs of the container's own
        "XDG_STATE_HOME": plan.state,
        "TMPDIR": str(_scratch(plan)),
    }
    if redis is not None and redis.password_env:
        environment[redis.password_env] = None  # from .env, or from the shell of who starts it
    secrets = folder / "environment"
    return {
        "image": image,
        "command": ["protect"],
        "working_dir": _INSIDE,
        "user": user or "0:0",
        "cap_drop": ["ALL"],
        **({} if user else {"cap_add": ["DAC_OVERRIDE"]}),
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108
        "restart": "always",
        "stop_grace_period": "60s",
        "mem_limit": "2g",
        "cpu_shares": 128,
        "oom_score_adj": 500,
        "environment": environment,
        **({"env_file": [str(secrets)]} if secrets.is_file() else {}),
        "healthcheck": {
            "test": ["CMD", "kumodr", "status", "--json"],
            "interval": "60s",
            "timeout": "30s",
            "start_period": "120s",
        },
        # What makes the tool start the sidecar anew when its plan changed.
        "labels": {"kumodr.plan": digest},
        "volumes": [
            *(each.values() for each in mounts),
            {"type": "bind", "source": str(folder), "target": _INSIDE, "read_only": True},
        ],
    }


def _networks(config: Any, beside: list[str], plan: Plan) -> dict[str, None]:
    """Return the networks of what the sidecar talks to, and one that leads out where the vault needs it."""
    names: dict[str, None] = {}
    for each in beside:
        names |= dict.fromkeys(map(str, config["services"][each].get("networks") or ["default"]))
    known = config.get("networks") or {}
    inner = all((known.get(name) or {}).get("internal") for name in names)
    return names | ({_OUT: None} if inner and "://" in plan.vault.url else {})


def _port(values: Mapping[str, Any]) -> str:
    return str(values["protect"]["metrics"]).rpartition(":")[2] or str(METRICS)


def _scratch(plan: Plan) -> Path:
    return Path(plan.state) / "scratch"


def _notes(plan: Plan, folder: Path, separate: Path | None, project: Project) -> list[str]:
    notes = ["`kumodr verify --restore` is the only real proof: run it now and then where the identity is kept"]
    if separate is not None:
        files = os.pathsep.join(str(each) for each in _with(project, separate).files)
        notes.append(f"the compose tool has to know the file: COMPOSE_FILE={files} in .env, or -f for each of them")
    if "://" in plan.vault.url and not (folder / "environment").is_file():
        notes.append(
            f"credentials of the vault go into {folder}/environment, NAME=value a line, mode 0600; then run this again"
        )
    if plan.components.prometheus is not None and not plan.components.prometheus.data:
        notes.append("Prometheus is not stored: components.prometheus.data does not say where its data lies")
    if plan.components.images is not None:
        notes.append("images are stored from this host, which has Docker: have `kumodr backup images` run every day")
    return notes


def _escaped(value: Any) -> Any:
    """Return values with `$` written so that the compose tool takes it for one."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else value
