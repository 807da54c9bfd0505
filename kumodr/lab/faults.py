"""What can go wrong with a site, on demand and repeatable: `kumodr lab break FAULT --seed N`.

Each fault acts inside the site's own directory only, and returns a sentence that says exactly what was broken.
"""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

from kumodr import errors
from kumodr.lab.opening import AnySite
from kumodr.lab.site import Site

_FILL_LIMIT = 2 << 30
_PIECE = 1 << 20


def kill(site: AnySite, _chance: random.Random) -> str:
    """end the mail server with SIGKILL"""
    pid = site.pid("kumod")
    site.kill(["kumod"])
    return f"killed kumod (process {pid})" if pid else "kumod was not running"


def wipe(site: AnySite, _chance: random.Random) -> str:
    """end every process but the sink and remove the site's whole directory"""
    site.wipe()
    return f"killed every process of the site and removed {site.root}"


def corrupt_sst(site: AnySite, chance: random.Random) -> str:
    """overwrite 64 bytes in the middle of a table of the spool"""
    path = _one_of(site, "*.sst", chance)
    at = path.stat().st_size // 2
    _overwrite(path, at, chance.randbytes(min(64, path.stat().st_size - at)))
    return f"overwrote 64 bytes at {at} of {path}"


def drop_sst(site: AnySite, chance: random.Random) -> str:
    """remove a table of the spool"""
    path = _one_of(site, "*.sst", chance)
    path.unlink()
    return f"removed {path}"


def truncate_sst(site: AnySite, chance: random.Random) -> str:
    """cut a table of the spool in half"""
    return _cut(_one_of(site, "*.sst", chance))


def drop_wal(site: AnySite, chance: random.Random) -> str:
    """remove a write-ahead log of the spool"""
    path = _one_of(site, "*.log", chance)
    path.unlink()
    return f"removed {path}"


def truncate_wal(site: AnySite, chance: random.Random) -> str:
    """cut a write-ahead log of the spool in half"""
    return _cut(_one_of(site, "*.log", chance))


def flip_bit(site: AnySite, chance: random.Random) -> str:
    """flip one bit somewhere in a table or log of the spool"""
    path = _one_of(site, "*.[sl][so][tg]", chance)
    at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
    with open(path, "r+b") as file:
        file.seek(at)
        value = file.read(1)[0]
    _overwrite(path, at, bytes([value ^ 1 << bit]))
    return f"flipped bit {bit} of byte {at} of {path}"


def drop_current(site: AnySite, chance: random.Random) -> str:
    """remove CURRENT of one half of the spool"""
    path = _one_of(site, "CURRENT", chance)
    path.unlink()
    return f"removed {path}"


def unparsable_meta(site: AnySite, chance: random.Random) -> str:
    """make a message's metadata unreadable (LocalDisk)"""
    found = sorted(path for path in (site.spool / "meta" / "data").rglob("*") if path.is_file())
    if not found:
        raise errors.LabFailed(
            "the spool holds no LocalDisk message", remedy="use `lab up --kind LocalDisk`, with load"
        )
    path = chance.choice(found)
    path.write_bytes(b"{not json")
    return f"overwrote {path}"


def fill_disk(site: AnySite, _chance: random.Random) -> str:
    """fill the disk with a file in the site, at most 2 GiB: for sites on a small disk of their own"""
    if not isinstance(site, Site):
        raise errors.LabFailed("containers share the host's disk, which is not filled", remedy="use a lab of processes")
    path = site.root / "run" / "fill"
    free = os.statvfs(site.root).f_bavail * os.statvfs(site.root).f_frsize
    if free > _FILL_LIMIT:
        raise errors.LabFailed(
            f"the disk of {site.root} has {free >> 30} GiB free, and this fills at most 2",
            remedy="make the lab on a small disk, for example a tmpfs",
        )
    written = 0
    with open(path, "wb", buffering=0) as file:
        while written < _FILL_LIMIT:
            try:
                written += file.write(bytes(_PIECE)) or 0
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
    return f"filled the disk with {written} bytes in {path}"


_SPOOL_FAULTS = (corrupt_sst, drop_sst, truncate_sst, drop_wal, truncate_wal, flip_bit, drop_current, unparsable_meta)

FAULTS: dict[str, Callable[[AnySite, random.Random], str]] = {
    each.__name__.replace("_", "-"): each for each in (kill, wipe, *_SPOOL_FAULTS, fill_disk)
}
"""The faults by the name that the command line gives them."""


def break_site(site: AnySite, fault: str, seed: int) -> str:
    """Given a fault's name and a seed, break the site and return the sentence. Raise UsageWrong, LabFailed."""
    if fault not in FAULTS:
        raise errors.UsageWrong(f"there is no fault {fault!r}", remedy=f"choose from: {', '.join(FAULTS)}")
    return FAULTS[fault](site, random.Random(f"{seed}|{fault}"))


def _one_of(site: AnySite, pattern: str, chance: random.Random) -> Path:
    """Return one file of the spool, never an empty one; the same for the same seed and files."""
    found = sorted(path for path in (site.spool).glob(f"*/{pattern}") if path.stat().st_size)
    if not found:
        raise errors.LabFailed(f"the spool holds no {pattern} yet", remedy="send it some load first")
    return chance.choice(found)


def _cut(path: Path) -> str:
    half = path.stat().st_size // 2
    os.truncate(path, half)
    return f"cut {path} to {half} bytes"


def _overwrite(path: Path, at: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, at)
    finally:
        os.close(descriptor)
