"""Copy what was restored to where a server looks for it: whole, durable, with the right owners, or not at all.

Everything is copied beside its place and synced, and only then renamed: a folder as a whole, or, where the folder is a
mount or the root of a volume and cannot be renamed over, each entry in it, RocksDB's CURRENT last, without which no
database is there. So what stands under its name is whole, whenever this is killed; the next try removes the rest of the
one before, and takes an entry that is as it should be for done. An entry that is not so is somebody else's, and nothing
is put over it.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.components.places import Place
from kumodr.durable import sync_directory, sync_filesystem
from kumodr.recover.target import MARKER

STAGE = ".kumodr-placing"


@dataclass(frozen=True)
class Size:
    """Files, and their bytes."""

    files: int
    size: int


def size_of(source: Path) -> Size:
    """Given a restored file or folder, count. Raise OSError."""
    found = [path.lstat() for path in (source, *source.rglob("*"))]
    files = [each for each in found if stat.S_ISREG(each.st_mode)]
    return Size(len(files), sum(each.st_size for each in files))


def missing_in(source: Path, target: Path) -> list[str]:
    """Given a restored folder and where it belongs, return the entries that are not there yet.

    Raise TargetNotEmpty where something else is there.
    """
    wanted = {each.name: each for each in source.iterdir()}
    there = {each.name: each for each in target.iterdir() if each.name != STAGE} if target.is_dir() else {}
    missing = [name for name in sorted(wanted) if name not in there or _is_hollow(there[name])]
    for name, path in there.items():
        if not _is_hollow(path) and (name not in wanted or not _same(wanted[name], path)):
            raise errors.TargetNotEmpty(
                f"{path} is there, and is not what was restored",
                remedy="move it away, or name with --component what is to be placed; nothing is put over it",
            )
    return missing


def fill(source: Path, target: Path, place: Place) -> None:
    """Given a restored folder, where it belongs, and how that folder was, put it there.

    Raise TargetNotEmpty, OSError.
    """
    make_folder(target.parent)
    beside = target.with_name(f".{target.name}{STAGE}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(target / STAGE, ignore_errors=True)
    missing = sorted(missing_in(source, target), key=lambda name: name == "CURRENT")
    if missing and not _is_root(target, place) and (_is_hollow(target) or not target.exists()):
        _copy(source, beside, place)
        sync_filesystem(beside)
        if target.exists():
            _remove_hollow(target)
        beside.rename(target)
        sync_directory(target.parent)
    elif missing:
        _fill_root(source, target, place, missing)
    make_folder(target)
    own(target, place)
    sync_directory(target)


def _fill_root(source: Path, target: Path, place: Place, missing: list[str]) -> None:
    stage = target / STAGE
    stage.mkdir(mode=0o700)
    for name in missing:
        _copy(source / name, stage / name, place)
    sync_filesystem(stage)
    for name in missing:
        there = target / name
        if there.is_dir() and not there.is_symlink():
            _remove_hollow(there)
        (stage / name).rename(there)
    stage.rmdir()


def _is_root(target: Path, place: Place) -> bool:
    """Whether a folder cannot be replaced by another: a mount, or what a Docker volume mounts."""
    return os.path.ismount(target) or (place.volume is not None and not place.volume[1])


def make_folder(folder: Path) -> None:
    """Given a folder, make it, and those above, where they are missing. Raise OSError."""
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():
            each.mkdir(mode=0o755)
            sync_directory(each.parent)


def own(target: Path, place: Place) -> None:
    """Given a folder and how it was, make it so. Who is not root cannot give it to another. Raise OSError."""
    if place.uid is not None and place.gid is not None and os.geteuid() == 0:
        os.chown(target, place.uid, place.gid)
    if place.mode is not None:
        target.chmod(place.mode)


def why_not_restored(directory: Path) -> errors.KumodrError | None:
    """Given a directory, return the error where it is not what `kumodr restore` finished, or None."""
    if (directory / MARKER).is_file():
        return None
    return errors.ComponentUnavailable(
        f"{directory} is not what `kumodr restore` brought back: there is no {MARKER} in it",
        remedy="name the directory that was given to `kumodr restore --to`",
    )


def _copy(source: Path, target: Path, place: Place) -> None:
    status = source.lstat()
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
        _own_file(target, status, place, stat.S_IMODE(status.st_mode))
    elif stat.S_ISDIR(status.st_mode):
        target.mkdir(mode=0o700)
        for each in source.iterdir():
            _copy(each, target / each.name, place)
        _own_directory(target, status, place)
    else:
        raise errors.ComponentDamaged(f"{source} is neither a file nor a folder nor a link")


def _own_file(target: Path, status: os.stat_result, place: Place, mode: int) -> None:
    """Give a file its owner: the one it had; where that was root or is not known, the one of its folder."""
    if os.geteuid() == 0:
        root = status.st_uid == 0 and place.uid is not None
        os.chown(target, (place.uid or 0) if root else status.st_uid, (place.gid or 0) if root else status.st_gid)
    target.chmod(mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _own_directory(target: Path, status: os.stat_result, place: Place) -> None:
    """Give a directory its owner and mode. One that restoring had to make, because the vault knows only files in it,
    is root's and closed: it gets those of what is in it, since the folder above may be root's and open to all.
    """
    mode = stat.S_IMODE(status.st_mode)
    inside = next((each.lstat() for each in target.rglob("*") if each.is_file()), None)
    if status.st_uid == os.geteuid() and mode == 0o700:
        mode = ((place.mode or 0o700) & 0o2755) | 0o700
        if inside is not None and os.geteuid() == 0:
            os.chown(target, inside.st_uid, inside.st_gid)
    elif os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)
    target.chmod(mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _same(wanted: Path, there: Path) -> bool:
    """Whether what is there is a copy of what is wanted: the same files by name, size and time, as `_copy` leaves."""
    return _listing(wanted) == _listing(there)


def _listing(path: Path) -> dict[str, tuple[int, int]]:
    files = (each for each in (path, *path.rglob("*")) if each.is_file() and not each.is_symlink())
    return {str(each.relative_to(path)): (each.stat().st_size, each.stat().st_mtime_ns) for each in files}


def _is_hollow(path: Path) -> bool:
    """Whether it is a directory with no file below: an image may bring such along."""
    return path.is_dir() and not path.is_symlink() and all(each.is_dir() for each in path.rglob("*"))


def _remove_hollow(path: Path) -> None:
    for each in sorted((each for each in path.rglob("*")), reverse=True):
        each.rmdir()
    path.rmdir()
