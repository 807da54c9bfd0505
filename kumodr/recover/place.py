"""Put what was restored where its site has it: configuration to its paths, data into its folders and volumes.

Nothing is put over something else, no service may run meanwhile, and a spool must have been reconciled: a mail server
that starts on it sends all of it. The order is such that nothing can be started too early: configuration, then the
containers of a compose project, created and not started, since only the compose tool makes volumes as it wants them,
then data, of the spool the bodies before the messages. What is done already stays as it is, so this may be killed
anywhere and run again.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.config import ENVIRONMENT
from kumodr.components.places import Place, Places, read_places
from kumodr.reconcile.mark import is_reconciled
from kumodr.recover.putback import Size, fill, make_folder, missing_in, own, size_of, why_not_restored
from kumodr.recover.putconfig import ConfigFile, plan_config, put_config
from kumodr.runtimes.commands import Runner, run
from kumodr.runtimes.compose import ComposeRuntime, Project
from kumodr.runtimes.docker_errors import named
from kumodr.runtimes.protocol import Runtime
from kumodr.source import Facts, Progress
from kumodr.spool.copyrule import refuse_unless_copy
from kumodr.vault.fetch import written_to

COMPONENTS = ("config", "spool", "logs", "redis", "prometheus")
"""What is placed. Images are given to Docker, and the ledger is evidence."""

_QUICK = 60.0


@dataclass(frozen=True)
class Folder:
    """A folder of live data and what is to be put there; None: only the folder itself. `target` is None where Docker
    has no such volume yet; `done` says that nothing is missing there.
    """

    place: Place
    source: Path | None
    size: Size
    target: Path | None
    done: bool


@dataclass(frozen=True)
class Placing:
    """Everything that is to be done, and what the site has that was not restored."""

    directory: Path
    places: Places
    config: tuple[ConfigFile, ...]
    folders: tuple[Folder, ...]
    absent: tuple[str, ...]

    @property
    def project(self) -> Path | None:
        """The folder of the compose project, None where the site is none."""
        runtime = self.places.runtime
        return Path(runtime.directory) if runtime.kind == "compose" and runtime.directory else None


@dataclass(frozen=True)
class Placed:
    """What the spool holds in its place, read there; by service, the variables that it ran with and would not now."""

    vetted: Facts
    differing: Mapping[str, tuple[str, ...]]


def plan_placing(directory: Path, components: Sequence[str], *, reconciled: bool, runner: Runner = run) -> Placing:
    """Given what `kumodr restore` brought back and the components to place (none: all), return what is to be done.

    With `reconciled` false the spool need not be. Raise TargetNotEmpty, TargetIsLive, SpoolNotReconciled,
    ComponentUnavailable, ComponentDamaged, Docker's errors.
    """
    refusal = why_not_restored(directory)
    if refusal is not None:
        raise refusal
    places = read_places(directory / "config")
    wanted = [name for name in components or COMPONENTS if (directory / name).is_dir()]
    if "spool" in wanted:
        refuse_unless_copy(directory / "spool" / "meta", directory / "spool" / "data", "auto")
        if reconciled and not is_reconciled(directory):
            raise errors.SpoolNotReconciled(
                f"{directory / 'spool'} was not reconciled: a mail server would send again what was sent already",
                remedy=f"run `kumodr spool reconcile --spool {directory / 'spool'} --apply` first",
            )
    config = plan_config(directory / "config") if "config" in wanted else ()
    differing = [str(each.path) for each in config if each.action == "differs"]
    if differing:
        raise errors.TargetNotEmpty(
            f"configuration differs from what was restored: {', '.join(differing[:10])}",
            remedy=f"compare with {directory}/config/files and move yours away, or leave it out with --component",
        )
    folders = tuple(_folder(each, directory, runner) for each in places.folders if each.component in wanted)
    known = {each.component for each in places.folders} | {"config"}
    absent = tuple(sorted((known - set(wanted)) if not components else set(components) - set(wanted)))
    return Placing(directory, places, config, folders, absent)


def place(
    planned: Placing, *, progress: Progress, say: Callable[[str], None], clock: Clock, runner: Runner = run
) -> Placed:
    """Given a plan, do it; return what came of it. Raise as `plan_placing` does, and ImageMissing, FileUnreadable,
    SpoolDamaged, DiskFull.
    """
    with written_to(Path("/etc")):
        put_config(planned.config)
    compose = project_of(planned, say, runner)
    if compose is not None:
        _create(compose, planned, say)
    for number, each in enumerate(planned.folders):
        progress("placing", number, len(planned.folders))
        target = _target(each.place, runner)
        if target is None:
            volume, _ = each.place.volume or ("", "")
            raise errors.FileUnreadable(
                f"Docker has no volume {volume}, and the compose project did not make it",
                remedy=f"make it with `docker volume create {volume}`, where it is an external one",
            )
        with written_to(target):
            if each.source is None:
                make_folder(target)
                own(target, each.place)
            else:
                fill(each.source, target, each.place)
    differing = _differing(compose, planned.directory / "config") if compose else {}
    return Placed(_vetted(planned, clock, runner), differing)


def project_of(planned: Placing, say: Callable[[str], None], runner: Runner = run) -> ComposeRuntime | None:
    """Given a plan, return the compose project of the site, None where it is none."""
    runtime = planned.places.runtime
    if planned.project is None:
        return None
    files = tuple(Path(each) for each in runtime.files)
    return ComposeRuntime(Project(planned.project, files, runtime.profiles, runtime.project), say=say, runner=runner)


def _folder(place: Place, directory: Path, runner: Runner) -> Folder:
    target = _target(place, runner)
    source = directory / place.source if place.source is not None else None
    if source is not None and not source.is_dir():
        source = None
    if source is None:
        return Folder(place, None, Size(0, 0), target, target is not None and target.is_dir())
    done = target is not None and target.is_dir() and not missing_in(source, target)
    return Folder(place, source, size_of(source), target, done)


def _target(place: Place, runner: Runner) -> Path | None:
    """Return where a place is on this host, None where it is in a volume that is not there."""
    if place.volume is None:
        return Path(place.path)
    name, inside = place.volume
    try:
        answer = runner(["docker", "volume", "inspect", "--format={{.Mountpoint}}", name], limit=_QUICK)
    except errors.ToolMissing as error:
        raise errors.DockerAbsent("docker is not on this machine, and the site has its data in volumes") from error
    text = answer.err.decode(errors="replace")
    if answer.code and "no such volume" in text.lower():
        return None
    if answer.code:
        raise named(text, name)
    root = Path(answer.out.decode(errors="replace").strip())
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise errors.FileUnreadable(
            f"the volume {name} at {root} cannot be written from here", remedy="run this as root, where Docker runs"
        )
    return root / inside


def _create(compose: ComposeRuntime, planned: Placing, say: Callable[[str], None]) -> None:
    running = [name for name in compose.services() if compose.state(name).running]
    if running:
        raise errors.TargetIsLive(
            f"services of {planned.project} run: {', '.join(running)}",
            remedy="stop them; what they write to is not touched",
        )
    _must_have_images(compose, planned.directory)
    with written_to(Path(planned.places.state)):
        # A sidecar mounts it, and what it mounts has to be there.
        Path(planned.places.state).mkdir(mode=0o700, parents=True, exist_ok=True)
    say("creating the project's containers and volumes; none is started")
    compose.up([], started=False)


def _differing(compose: ComposeRuntime, config: Path) -> dict[str, tuple[str, ...]]:
    """Return for each service the variables that it ran with and would not now, as where a shell had set them."""
    found: dict[str, tuple[str, ...]] = {}
    for service in compose.services():
        file = config / f"{ENVIRONMENT}.{service}"
        if file.is_file():
            lines = (word.partition("=") for word in shlex.split(file.read_text(errors="replace")))
            now = compose.environment_to_be(service)
            names = tuple(name for name, _, value in lines if now.get(name) != value)
            found |= {service: names} if names and now else {}
    return found


def _must_have_images(runtime: Runtime, directory: Path) -> None:
    missing = {image.name: name for name in runtime.services() if (image := runtime.image(name)).id is None}
    if missing:
        text = ", ".join(f"{image} of {service}" for image, service in missing.items())
        raise errors.ImageMissing(
            f"Docker has no image {text}",
            remedy=f"give it back with `kumodr images load {directory} --apply`, or pull or build it",
        )


def _vetted(planned: Placing, clock: Clock, runner: Runner) -> Facts:
    """Read the spool where it is now, as RocksDB or KumoMTA would."""
    halves = {
        str(each.place.source): _target(each.place, runner) for each in planned.folders if each.place.source is not None
    }
    meta, data = halves.get("spool/meta"), halves.get("spool/data")
    if meta is None or data is None:
        return {}
    from kumodr.spool.vet import DAMAGED, LOG_DAMAGED, NO_CURRENT, vet_and_count

    vetted = vet_and_count(meta, data, "auto", clock())
    for each in vetted.findings:
        if each.reason in (DAMAGED, LOG_DAMAGED, NO_CURRENT):
            raise errors.SpoolDamaged(f"the spool was put to {meta.parent}, and is not good there: {each.detail}")
    return {"messages": vetted.meta_count, "bodies": vetted.data_count}
