"""What is there to work with, and what is missing, said in one list. Nothing is changed."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from kumodr import errors
from kumodr.cli.terminal import size_text
from kumodr.recover.system.scene import Scene, survives
from kumodr.runbooks.step import Context, Outcome
from kumodr.vault.facts import Point
from kumodr.vault.keys import Identities, NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.points import survey
from kumodr.vault.seal import LARGEST_SEALED, unseal

_AHEAD = 60.0


def assess(scene: Scene, context: Context) -> Outcome:
    """Given the scene, look at runtime, ports, disk, memory, clock, vault, key and what survives.

    Raise StepFailed with everything that is missing.
    """
    missing: list[str] = []
    found: list[str] = []
    warnings: list[str] = []
    running: list[str] = []
    try:
        runtime = scene.runtime(context.say)
        _ = scene.kumod
        if runtime is None:
            found.append("nothing of the site's services is left")
        else:
            running = [each for each in scene.services(runtime) if runtime.state(each).running]
            found.append(f"{scene.plan.runtime.kind}: {', '.join(running) or 'no service'} runs")
    except errors.KumodrError as error:
        missing.append(str(error).rstrip("."))
    try:
        vault, identities = scene.vault(), scene.identities()
        points = survey(vault, identities.pins)
        newest = max((each.taken for each in points.points), default=None)
        if newest is None:
            missing.append("the vault holds no recovery point")
        elif (newest - context.clock()).total_seconds() > _AHEAD:
            warnings.append("the newest recovery point is of a time ahead: the clock of this host is wrong")
        else:
            must_open(vault, identities, points.points[-1])
        found.append(f"the vault answers: {len(points.points)} recovery points, and the identity opens them")
        warnings += [f"in the vault: {each}" for each in points.problems]
    except errors.KumodrError as error:
        missing.append(str(error).rstrip("."))
    missing += list(_programs(scene))
    if not running:
        missing += list(_taken_ports(scene))
    left = survives(scene.meta) or survives(scene.data)
    stranger = _why_not_vouched(scene)
    if stranger is not None:
        (missing if left else warnings).append(stranger)
    found.append("a spool survives here" if left else "no spool survives here")
    disk = shutil.disk_usage(existing(scene.meta))
    found.append(f"{size_text(disk.free)} of disk and {size_text(_memory())} of memory are free")
    if missing:
        raise errors.StepFailed("; ".join(missing))
    facts = {"survives": left, "running": running}
    return Outcome("; ".join(found), facts, tuple(warnings))


def must_open(vault: Vault, identities: Identities, point: Point) -> None:
    """Given a point, open the first object of it. Raise WrongKey, ObjectDamaged."""
    first = next(iter(point.sections[0].index), None)
    if first is not None:
        unseal(vault.store.get(first.name, LARGEST_SEALED), identities.secrets, None, first.name)


def _why_not_vouched(scene: Scene) -> str | None:
    """Return why points that this host adds do not count for who restores with this identity, or None.

    A surviving spool is captured by this host's key: that must count, or what was captured could not come back.
    """
    try:
        pinned = scene.identities().pins.get(scene.plan.site)
        state = Path(scene.plan.state)
        if pinned is None or not (state / "node.key").exists():
            return None
        key = NodeKey.load_or_create(state, scene.plan.site).public
    except errors.KumodrError:
        return None
    if key in pinned:
        return None
    return (
        f"this host has a new key that the identity file does not name; if it was rebuilt, add the line "
        f"`# kumodr node {scene.plan.site} {key}` to that file"
    )


def _programs(scene: Scene) -> Iterator[str]:
    """Yield the programs that the site's services or their examination need and that this machine lacks."""
    parts, kind = scene.plan.components, scene.plan.runtime.kind
    wanted = [("redis-server", "redis-server")] if parts.redis is not None else []
    wanted += [("promtool", "prometheus")] if parts.prometheus is not None else []
    wanted += [("docker", "docker.io docker-compose")] if kind == "compose" else []
    for program, package in wanted:
        if shutil.which(program) is None:
            yield f"{program} is missing on this machine: `apt install {package}`"


def _taken_ports(scene: Scene) -> Iterator[str]:
    """Yield the plan's listeners that something else answers at."""
    kumod = scene.plan.kumod
    for what, address in (("kumod.smtp", kumod.smtp), ("kumod.http", (kumod.http or "").partition("://")[2])):
        host, _, port = (address or "").rstrip("/").rpartition(":")
        if not port.isdigit():
            continue
        try:
            with socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout=2):
                yield f"something else listens at {address}, where {what} belongs; stop it"
        except OSError:
            continue


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def _memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
