"""Put what was restored where it belongs, by renaming; what was there is moved aside, never deleted.

Repeatable at any point: `moved` looks only at which of source, place and the one aside exist. Source there, place
taken: the place goes aside. Source there, place free: the source goes to its place. Source gone: it was done.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.durable import sync_directory, sync_file, sync_filesystem
from kumodr.recover.system.scene import Scene
from kumodr.recover.system.stop import proved
from kumodr.runbooks.step import Context, Outcome

_HALF_MODE = 0o2770
"""As KumoMTA's packages have it; a half that its group cannot enter is a trap (facts §13)."""

_DIRECTORY_MODE = 0o755


def put_in_place(scene: Scene, context: Context) -> Outcome:
    """Put the spool in place of what is there, and of everything else what the disaster took. Raise StepFailed.

    Configuration, logs, Redis and Prometheus that are still here are newer than the vault's, and stay.
    """
    proved(scene, context)
    work = scene.work(context.run)
    told: list[str] = []
    files = list(_missing_files(work / "config" / "files", _lab_moved(scene, work / "config" / "files")))
    if files:
        told.append(f"{len(files)} files of configuration were gone, and are back")
    _make_volumes(scene, context)
    asides = spool_in_place(scene, context.run)
    told += [f"what was there before is now {each}" for each in asides]
    if scene.plan.components.logs is not None:
        for number, directory in enumerate(scene.plan.components.logs.directories, 1):
            told += _where_missing(work / "logs" / f"{number}-{Path(directory).name}", Path(directory))
    if scene.plan.components.prometheus is not None and scene.plan.components.prometheus.data:
        told += _where_missing(work / "prometheus", Path(scene.plan.components.prometheus.data))
    redis = scene.plan.components.redis
    if redis is not None and redis.data:
        told += _where_missing(work / "redis", Path(redis.data))
    if scene.plan.runtime.kind == "process":
        from kumodr.lab.rebuild import rebuild

        rebuild(Path(scene.plan.runtime.directory or "."), scene.plan, work)
    redis_lost = scene.plan.runtime.kind != "process" and not context.facts["survives"] and _dump_left(work)
    warnings = [f"{work / 'redis'} holds Redis' dump; put it where Redis looks for it"] if redis_lost else []
    return Outcome("; ".join(told) or "in place", placed(scene, context, asides), tuple(warnings))


def spool_in_place(scene: Scene, run: str) -> list[str]:
    """Put both halves of this run's spool in place of what is there, with its owner; return where that is now."""
    asides: list[str] = []
    for half, name in ((scene.meta, "meta"), (scene.data, "data")):
        aside = half.with_name(f"{half.name}.before-{run}")
        owner = owner_of(aside) or owner_of(half)
        moved(scene.work(run) / "spool" / name, half, aside)
        if owner is not None:
            give(half, *owner)
        else:
            _give_as_its_files(half)
        half.chmod(_HALF_MODE)
        if aside.exists():
            asides.append(str(aside))
    return asides


def placed(scene: Scene, context: Context, asides: Sequence[str]) -> dict[str, Any]:
    """Given what has another name now, return what later steps need to know: the time, how often the mail server has
    loaded a spool so far, and what is kept.
    """
    runtime = scene.runtime(context.say)
    marks = 0 if runtime is None else enumerations(runtime.logs(scene.kumod, lines=_LINES))
    return {"marks": marks, "placed": text_of_time(context.clock()), "kept": [str(scene.work(context.run)), *asides]}


def _make_volumes(scene: Scene, context: Context) -> None:
    """Have Docker make the volumes and containers that are gone, started none: when it makes a volume it gives the
    folder that is there to root, so this comes before anything is put in it.
    """
    from kumodr.runtimes.compose import ComposeRuntime

    runtime = scene.runtime(context.say)
    if isinstance(runtime, ComposeRuntime):
        runtime.up(scene.services(runtime), started=False)


_LINES = 5000
_DONE = "enumeration done, spooled in "


def enumerations(text: str) -> int:
    """Given the end of the mail server's own log, return how often it says that it has loaded the spool."""
    return text.count(_DONE)


def is_in_place(scene: Scene, _context: Context) -> Outcome:
    """Return that both halves are there. Raise StepFailed."""
    for half in (scene.meta, scene.data):
        if not half.is_dir() or not any(half.iterdir()):
            raise errors.StepFailed(f"{half} is not there")
    return Outcome(f"the spool is in {scene.meta.parent}")


def moved(source: Path, target: Path, aside: Path) -> None:
    """Given what is to be put, its place, and where what is there goes, do what is left to do of it. Raise StepFailed,
    DiskFull.
    """
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
            target.rmdir()
        elif os.path.lexists(target):
            if os.path.lexists(aside):
                raise errors.StepFailed(f"{target} came back after it was moved to {aside}: something writes there")
            target.rename(aside)
            sync_directory(target.parent)
        _rename(source, target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise errors.DiskFull(f"no space is left for {target}") from error
        reason = "it is a mount of its own" if error.errno == errno.EBUSY else error.strerror
        raise errors.StepFailed(f"{target} cannot be replaced: {reason}") from error


def _rename(source: Path, target: Path) -> None:
    """Rename, or over a border between disks copy to a name beside, and rename that."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.kumodr")
        if source.is_file():
            shutil.copy2(source, beside)
            sync_file(beside)
        else:
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(source, beside, symlinks=True)
            sync_filesystem(beside)
        beside.rename(target)
    sync_directory(target.parent)


def _where_missing(source: Path, target: Path) -> Iterator[str]:
    """Put a folder where nothing is, for the user whose files are in it; yield that it was."""
    if source.is_dir() and (not target.exists() or not any(target.iterdir())):
        moved(source, target, target.with_name(f".{target.name}.none"))
        _give_as_its_files(target)
        target.chmod(_DIRECTORY_MODE)
        yield f"{target} was gone, and is back"


def _lab_moved(scene: Scene, files: Path) -> tuple[Path, Path] | None:
    """Return where a lab of processes was and where it is now, None where that is the same place."""
    if scene.plan.runtime.kind != "process":
        return None
    found = next((path for path in files.rglob("lab.json") if path.parent.name == "config"), None)
    if found is None:
        return None
    was = Path("/") / found.parent.parent.relative_to(files)
    now = Path(scene.plan.runtime.directory or ".") / "site"
    return None if was == now else (was, now)


def _missing_files(files: Path, moving: tuple[Path, Path] | None) -> Iterator[str]:
    """Put each restored file where none is, with its mode and owner; yield it. Links are made as they were."""
    for path in sorted(files.rglob("*")):
        target = Path("/") / path.relative_to(files)
        if moving is not None:
            if moving[0] not in target.parents:
                continue
            target = moving[1] / target.relative_to(moving[0])
        if os.path.lexists(target):
            continue
        if path.is_dir() and not path.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copystat(path, target)
            continue
        beside = target.with_name(f".{target.name}.kumodr")
        beside.unlink(missing_ok=True)
        shutil.copy2(path, beside, follow_symlinks=False)
        if os.geteuid() == 0:
            status = path.lstat()
            os.chown(beside, status.st_uid, status.st_gid, follow_symlinks=False)
        beside.rename(target)
        yield str(target)


def owner_of(path: Path) -> tuple[int, int] | None:
    """Return user and group of a path, None where nothing is there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_uid, status.st_gid


def give(path: Path, uid: int, gid: int) -> None:
    """Let the owner of what was there own a file, or a folder and all that is in it, where this user may say so."""
    if os.geteuid() != 0:
        return
    os.chown(path, uid, gid, follow_symlinks=False)
    for place, folders, files in os.walk(path):
        for each in (os.path.join(place, name) for name in (*folders, *files)):
            os.chown(each, uid, gid, follow_symlinks=False)


def _give_as_its_files(folder: Path) -> None:
    """Let a restored folder belong to the user whose files are in it: what was stored of them says who that is."""
    first = next((each for each in sorted(folder.rglob("*")) if each.is_file()), None)
    if first is not None and os.geteuid() == 0:
        status = first.stat()
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
            os.chown(each, status.st_uid, status.st_gid)


def _dump_left(work: Path) -> bool:
    return (work / "redis").is_dir() and any((work / "redis").iterdir())
