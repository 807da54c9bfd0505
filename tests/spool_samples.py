"""Spools for tests: made by hand, or copied out of a snapshot as a restore would."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rocksdict import BlockBasedOptions, Options, Rdict

from kumodr.recover.target import MARKER
from kumodr.spool.localdisk import path_of
from kumodr.spool.snapshot import snapshot

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
_GREGORIAN = datetime(1582, 10, 15, tzinfo=UTC)


def key(age: timedelta = timedelta(hours=1), number: int = 0) -> bytes:
    """Return an id as KumoMTA makes it, of that age at NOW."""
    ticks = (NOW - age - _GREGORIAN) // timedelta(microseconds=1) * 10
    low, mid, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF
    return uuid.UUID(fields=(low, mid, high | 0x1000, 0x80 | number >> 8 & 0x3F, number & 0xFF, 0x660AAECCDE59)).bytes


def meta(**changes: object) -> bytes:
    """Return metadata as KumoMTA stores it."""
    plain = {"sender": "s@a.test", "recipient": "r@b.test", "meta": {"tenant": "t"}, "schedule": None}
    return json.dumps({**plain, **changes}, separators=(",", ":")).encode()


def write_half(half: Path, kind: str, entries: Mapping[bytes, bytes]) -> None:
    """Make one half of a spool as it is found after a restore: no LOG, no lock."""
    half.mkdir(parents=True, mode=0o755)
    if kind == "rocksdb":
        options = Options(raw_mode=True)
        tables = BlockBasedOptions()
        tables.set_format_version(5)
        options.set_block_based_table_factory(tables)
        opened = half.with_name(f".{half.name}.open")
        database = Rdict(str(opened), options)
        for number, (each, value) in enumerate(entries.items()):
            database.put(each, value)
            if number == len(entries) // 2:
                database.flush()
        # Copied while it is open, as a killed server leaves it: the newest entries are in the write-ahead log only.
        shutil.copytree(opened, half, dirs_exist_ok=True)
        database.close()
        shutil.rmtree(opened)
        half.chmod(0o755)
        for name in ("LOG", "LOCK", "rocksdict-config.json"):
            (half / name).unlink(missing_ok=True)
        return
    (half / "new").mkdir()
    (half / "data").mkdir()
    for each, value in entries.items():
        path = half / path_of(each)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        path.chmod(0o600)


def write_spool(spool: Path, kind: str, meta_entries: Mapping[bytes, bytes], data: Mapping[bytes, bytes]) -> None:
    """Make a restored spool, with the marker of a restore beside it."""
    write_half(spool / "meta", kind, meta_entries)
    write_half(spool / "data", kind, data)
    (spool.parent / MARKER).write_text("{}")


def restored(source: Path, target: Path) -> Path:
    """Copy a spool's snapshot to `target/spool` as a restore does, marker and all; return that."""
    spool = target / "spool"
    spool.mkdir(parents=True)
    with snapshot(source / "meta", source / "data") as snap:
        for file in snap.files:
            path = spool / file.path
            if file.kind == "directory":
                path.mkdir()
            else:
                path.write_bytes(file.content.read(0, file.size))
            path.chmod(file.mode)
    (target / MARKER).write_text("{}")
    return spool


def everything(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what would show any change: mode, size, times and inode of all that is in a folder, and of itself."""
    found: dict[str, tuple[int, ...]] = {}
    for root, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            status = os.lstat(os.path.join(root, name))
            found[os.path.join(root, name)] = (
                status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_nlink
            )  # fmt: skip
    return found
