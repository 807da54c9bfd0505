"""Put restored configuration back to the paths that it came from. A file that differs there stays, and is said."""

import filecmp
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kumodr.durable import sync_directory, sync_file
from kumodr.recover.putback import make_folder


@dataclass(frozen=True)
class ConfigFile:
    """One file, folder or link: where it is restored, where it belongs, and whether it is to be written there."""

    source: Path
    path: Path
    action: Literal["nothing", "write", "differs"]


def plan_config(config: Path) -> tuple[ConfigFile, ...]:
    """Given a restored `config`, return what belongs where, folders before what is in them. Raise OSError."""
    root = config / "files"
    return tuple(_planned(each, Path("/") / each.relative_to(root)) for each in sorted(root.rglob("*")))


def put_config(planned: tuple[ConfigFile, ...]) -> None:
    """Given a plan in which nothing differs, write. Each file gets its name when it is whole; doing it twice is doing
    it once. A folder that restoring had to make, because the vault knows only what is in it, is made as any new one.
    Raise OSError.
    """
    changed: set[Path] = set()
    wanted = [each for each in planned if each.action == "write"]
    for each in wanted:
        status = each.source.lstat()
        if stat.S_ISDIR(status.st_mode):
            make_folder(each.path)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(each.source), each.path)
        else:
            beside = each.path.with_name(f".{each.path.name}.kumodr-placing")
            beside.unlink(missing_ok=True)
            shutil.copyfile(each.source, beside, follow_symlinks=False)
            _as_it_was(beside, status)
            sync_file(beside)
            beside.rename(each.path)
        changed.add(each.path.parent)
    for each in reversed(wanted):
        status = each.source.lstat()
        if stat.S_ISDIR(status.st_mode) and not _is_implied(status):
            _as_it_was(each.path, status)
    for folder in changed:
        sync_directory(folder)


def _planned(source: Path, path: Path) -> ConfigFile:
    if not os.path.lexists(path):
        return ConfigFile(source, path, "write")
    if source.is_symlink() or path.is_symlink():
        same = source.is_symlink() and path.is_symlink() and os.readlink(source) == os.readlink(path)
        # A folder of the old host may be reached by a link on this one.
        same = same or (source.is_dir() and not source.is_symlink() and path.is_dir())
    elif source.is_dir():
        same = path.is_dir()
    else:
        same = path.is_file() and filecmp.cmp(source, path, shallow=False)
    return ConfigFile(source, path, "nothing" if same else "differs")


def _is_implied(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700


def _as_it_was(path: Path, status: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, status.st_uid, status.st_gid)
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
