"""A live database's directory as a follower of its logs sees it: which database it is, how far it got, which logs.

Which database: the text of IDENTITY, the directory's inode, and the machine's start. A database restored from a copy
has the same IDENTITY in another directory and counts on from an older number. And what is read of a live log is read
from memory that may not have reached the disk: while the machine runs, a server that starts again reads the same; after
a power failure the numbers of lost writes are given to other writes.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.protect.wal.manifest import ManifestTail
from kumodr.protect.wal.records import WalUnusable
from kumodr.spool.openfile import open_read_only, read_whole

_LOG = re.compile(r"(\d{6,20})\.log")
_TICKS_NS = 50_000_000
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Sight:
    """One look: the identity, the last sequence number of the MANIFEST, then, later, the numbers of the logs."""

    identity: str
    last_sequence: int
    logs: tuple[int, ...]


class LiveDatabase:
    """Given a directory, look at it again and again; nothing is written or locked there. Close it after use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._at: int | None = None
        self._listed = 0
        self._manifest = ManifestTail()

    def look(self) -> Sight:
        """Return what is there now. Raise WalUnusable where it is no longer the same directory, SpoolUnreadable."""
        try:
            at = self._same_directory()
            identity = _identity(at)
            last_sequence = self._manifest.last_sequence(at)
            return Sight(identity, last_sequence, _logs(at))
        except OSError as error:
            raise unreadable(self._directory, error) from error

    def glance(self) -> tuple[int, ...]:
        """Return the logs there now, or nothing where no name came or went since the last call. Raise OSError.

        A directory's time may not tell two changes apart that come within a tick of the kernel's clock.
        """
        if self._at is None:
            return ()
        changed = os.fstat(self._at).st_mtime_ns
        if changed == self._listed and time.time_ns() - changed > _TICKS_NS:
            return ()
        self._listed = changed
        return _logs(self._at)

    def open_log(self, number: int) -> int | None:
        """Given a log's number, return a descriptor of it, or None where it is gone. Raise SpoolUnreadable."""
        try:
            return open_read_only(name_of_log(number), self._at)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(self._directory, error) from error

    def is_same_log(self, number: int, descriptor: int) -> bool:
        """Whether the log of that number, where it is still there, is the one behind the descriptor."""
        try:
            there = os.stat(name_of_log(number), dir_fd=self._at, follow_symlinks=False)
        except FileNotFoundError:
            return True
        held = os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)

    def close(self) -> None:
        """Let go of the directory and its MANIFEST."""
        self._manifest.close()
        if self._at is not None:
            os.close(self._at)
            self._at = None

    def _same_directory(self) -> int:
        try:
            there = os.stat(self._directory)
            if self._at is None:
                self._at = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise WalUnusable("the database's directory is gone") from None
        held = os.fstat(self._at)
        if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise WalUnusable("the database's directory was replaced by another one")
        return self._at


def name_of_log(number: int) -> str:
    """Given a log's number, return its file's name."""
    return f"{number:06d}.log"


def why_another(known: str, now: str) -> str | None:
    """Given two identities, return why following cannot go on from the first to the second, or None."""
    if known == now:
        return None
    before, after = known.split("/"), now.split("/")
    if before[0] != after[0]:
        return "the database was replaced by another one (IDENTITY)"
    if before[1:2] != after[1:2]:
        return "the database's directory was replaced by another one"
    return "the machine was started again: what was read of the log may not have reached its disk"


def unreadable(directory: Path, error: OSError) -> errors.SpoolUnreadable:
    """Given what the system said of a file in the directory, return the error for the operator."""
    return errors.SpoolUnreadable(f"the spool {directory} cannot be read: {error.strerror or error}")


def _logs(at: int) -> tuple[int, ...]:
    found = (match for name in os.listdir(at) if (match := _LOG.fullmatch(name)))
    return tuple(sorted(int(match[1]) for match in found))


def _identity(at: int) -> str:
    try:
        descriptor = open_read_only("IDENTITY", at)
    except FileNotFoundError:
        raise WalUnusable("the database has no IDENTITY") from None
    try:
        text = read_whole(descriptor, 1 << 10).decode("ascii", "replace").strip().replace("/", "|")
    finally:
        os.close(descriptor)
    return f"{text}/{os.fstat(at).st_ino}/{boot_id()}"


def boot_id() -> str:
    """Return what tells one start of this machine from another, empty where the system does not say."""
    try:
        return _BOOT.read_text("ascii").strip()
    except FileNotFoundError:
        return ""
