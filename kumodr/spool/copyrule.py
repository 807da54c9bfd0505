"""Whether a spool may be written to: only a restored copy that no mail server has been started on.

The rule, and why it is sound:
- `kumodr-restored.json` stands in the directory that holds the spool, or one above: `kumodr restore` writes it last,
  and only into a directory that was empty, so the spool in it was never the live one when it was made.
- No RocksDB `LOG` and no LocalDisk `lock` stands in it. Recovery points leave both out, KumoMTA writes one at every
  start, and kumodr's own writing keeps its logs elsewhere. So where one of them is there, a mail server has been
  started on this spool since: it may be live by now, and is not a copy any more.
- Nobody holds the lock of a RocksDB half. This is asked without taking the lock.
"""

import fcntl
import os
import struct
from pathlib import Path

from kumodr import errors
from kumodr.recover.target import MARKER
from kumodr.spool.kind import kind_of
from kumodr.spool.openfile import open_read_only

_FLOCK = struct.Struct("hhqqi4x")


def refuse_unless_copy(meta: Path, data: Path, kind: str) -> None:
    """Given both halves' directories, raise TargetIsLive with the reason why they must not be written to, if any."""
    reason = why_not_copy(meta, data, kind)
    if reason is not None:
        raise errors.TargetIsLive(f"the spool {meta.parent} is not changed: {reason}")


def why_not_copy(meta: Path, data: Path, kind: str) -> str | None:
    """Given both halves' directories, return the reason why they may be a live spool, or None. Raise SpoolMissing."""
    root = Path(os.path.realpath(meta)).parent
    if Path(os.path.realpath(data)).parent != root:
        return "meta and data do not lie in one directory, as `kumodr restore` leaves them"
    for half in (meta, data):
        reason = _why_not_half(half, kind_of(half, kind))
        if reason is not None:
            return reason
    if not any((place / MARKER).is_file() for place in (root, root.parent)):
        return f"there is no {MARKER} beside it, so it was not made by `kumodr restore`"
    return None


def _why_not_half(half: Path, kind: str) -> str | None:
    if kind == "localdisk":
        return "a mail server has been started on it (its lock file is there)" if (half / "lock").exists() else None
    holder = _lock_holder(half / "LOCK")
    if holder is not None:
        return f"process {holder} holds its lock"
    return "a mail server has been started on it (its LOG is there)" if (half / "LOG").exists() else None


def _lock_holder(path: Path) -> int | None:
    """Return the process that holds the record lock of a file, or None; 0 where the kernel does not say which."""
    try:
        descriptor = open_read_only(str(path))
    except OSError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, holder = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else max(holder, 0)
