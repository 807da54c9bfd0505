"""Read a LocalDisk half of a spool: one file per message, `data/a1/a2/a3/a4/REST`, names in order of id.

A message's file appears by rename and is never written in place, but metadata is replaced by rename when a message is
put off; so a file is read in one go from one descriptor. Files in `new/` are unfinished, and KumoMTA deletes them.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.spool.openfile import open_read_only, read_whole

LARGEST = 1 << 30
"""No message is larger: a bound for what is read into memory."""

_PAIR = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class MessageFile:
    """One message's file: the bytes of its id, its path below the spool's half, and its status."""

    key: bytes
    path: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory on the way to messages, before those below it; its path below the spool's half."""

    path: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something below `data/` that is no message's file."""

    path: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A message whose folder this process may list but not enter: its name is known, and nothing else."""

    key: bytes
    path: str


def walk(half: Path) -> Iterator[MessageFile | Folder | Foreign]:
    """Given a half's directory, yield what is below `data/`, in order of id. What vanishes meanwhile is left out.

    Raise SpoolUnreadable where a directory cannot be listed or entered.
    """
    for found in walk_closed(half):
        if isinstance(found, Closed):
            raise errors.SpoolUnreadable(f"{half}/{found.path} cannot be read: its folder is closed to this user")
        yield found


def walk_closed(half: Path) -> Iterator[MessageFile | Folder | Foreign | Closed]:
    """As `walk`, but yield what lies in a folder that cannot be entered as Closed."""
    return _walk(str(half), "data", "")


def _walk(half: str, path: str, digits: str) -> Iterator[MessageFile | Folder | Foreign | Closed]:
    try:
        status = os.stat(f"{half}/{path}", follow_symlinks=False)
        with os.scandir(f"{half}/{path}") as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.SpoolUnreadable(f"{half}/{path} cannot be listed: {error.strerror}") from error
    yield Folder(path, status)
    for entry in entries:
        name = f"{path}/{entry.name}"
        if len(digits) < 8 and _PAIR.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield from _walk(half, name, digits + entry.name)
        elif len(digits) == 8 and _REST.fullmatch(entry.name):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except PermissionError:
                yield Closed(bytes.fromhex(digits + entry.name), name)
                continue
            if stat.S_ISREG(status.st_mode):
                yield MessageFile(bytes.fromhex(digits + entry.name), name, status)
            else:
                yield Foreign(name)
        else:
            yield Foreign(name)


def path_of(key: bytes) -> str:
    """Given the bytes of an id, return the path of its file below the half's directory."""
    text = key.hex()
    return f"data/{text[:2]}/{text[2:4]}/{text[4:6]}/{text[6:8]}/{text[8:]}"


def read_message(half: Path, path: str) -> tuple[bytes, os.stat_result] | None:
    """Given a message's file, return its bytes and their status, of one moment; None where it is gone.

    Raise SpoolUnreadable.
    """
    try:
        descriptor = open_read_only(f"{half}/{path}")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.SpoolUnreadable(f"{half}/{path} cannot be read: {error.strerror}") from error
    try:
        return read_whole(descriptor, LARGEST), os.fstat(descriptor)
    except OSError as error:
        raise errors.SpoolUnreadable(f"{half}/{path} cannot be read: {error.strerror or error}") from error
    finally:
        os.close(descriptor)


class LocalReader:
    """Keys in order, values whole, as `RocksReader`, straight from the files."""

    def __init__(self, half: Path) -> None:
        self._half = half

    def ids(self) -> Iterator[bytes]:
        """Yield every id's bytes in ascending order. Raise SpoolUnreadable."""
        return (found.key for found in walk(self._half) if isinstance(found, MessageFile))

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every id's bytes and content in ascending order. Raise SpoolUnreadable."""
        for found in walk(self._half):
            if isinstance(found, MessageFile) and (message := read_message(self._half, found.path)) is not None:
                yield found.key, message[0]

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Yield every id's bytes and the size of its file, in ascending order. Raise SpoolUnreadable."""
        return ((found.key, found.status.st_size) for found in walk(self._half) if isinstance(found, MessageFile))

    def get(self, key: bytes) -> bytes | None:
        """Given an id's bytes, return its content, or None where there is none. Raise SpoolUnreadable."""
        message = read_message(self._half, path_of(key)) if len(key) == 16 else None
        return None if message is None else message[0]

    def close(self) -> None:
        """Nothing is held open."""
