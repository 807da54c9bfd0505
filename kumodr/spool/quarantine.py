"""Take messages out of a restored spool before a mail server starts on it, and put them back.

`<spool>/quarantine/<id>/` holds `meta.json` and `body.eml` exactly as they were stored, and `reason.json`. Nothing is
lost whenever this is killed: a message is written there durably (temporary folder, fsync, rename, fsync) before it is
deleted from the spool, and put back durably before its folder is removed. A message that is in both places is taken
out, or put back, by the next run. Only a restored copy is ever changed: `copyrule.py`.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import sync_directory
from kumodr.source import Progress
from kumodr.spool.copyrule import refuse_unless_copy
from kumodr.spool.openfile import open_read_only, read_whole
from kumodr.spool.vet import Finding
from kumodr.spool.writer import Writer, open_writer

FOLDER = "quarantine"
_AT_ONCE = 128
_PARTS = {"meta": "meta.json", "data": "body.eml"}
_LARGEST_REASON = 1 << 20
_LARGEST_PART = 1 << 30


@dataclass(frozen=True)
class Quarantined:
    """One message in quarantine: its id, why, where its folder is, and the sizes of its parts (None: it had none)."""

    id: str
    reason: str
    detail: str
    folder: Path
    meta_size: int | None
    body_size: int | None


@dataclass(frozen=True)
class Applied:
    """What was taken out, and the findings that concern no single message and so stay."""

    moved: tuple[str, ...]
    left: tuple[Finding, ...]


def folder_of(meta: Path) -> Path:
    """Given the directory of `meta`, return where the quarantine is."""
    return meta.parent / FOLDER


def apply(
    findings: Sequence[Finding],
    meta: Path,
    data: Path,
    kind: str = "auto",
    progress: Progress = lambda _what, _done, _total: None,
) -> Applied:
    """Given what `vet` found in a restored copy, move each message named there into quarantine.

    Raise TargetIsLive where it is not certainly a copy, SpoolDamaged, SpoolUnreadable, DiskFull.
    """
    refuse_unless_copy(meta, data, kind)
    wanted = [(each.id, each) for each in findings if each.id is not None]
    left = tuple(each for each in findings if each.id is None)
    moved: list[str] = []
    if not wanted:
        return Applied((), left)
    folder = folder_of(meta)
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as opened:
        halves = _open(opened, meta, data, kind)
        for start in range(0, len(wanted), _AT_ONCE):
            batch = wanted[start : start + _AT_ONCE]
            try:
                moved += [identifier for identifier, each in batch if _keep(folder, identifier, each, halves)]
                sync_directory(folder)
            except OSError as error:
                raise errors.DiskFull(f"{folder} cannot be written: {error.strerror or error}") from error
            for name in ("data", "meta"):
                halves[name].delete(bytes.fromhex(identifier) for identifier, _ in batch)
            progress("moving messages to quarantine", len(moved), len(wanted))
    return Applied(tuple(moved), left)


def listed(meta: Path) -> tuple[Quarantined, ...]:
    """Given the directory of `meta`, return what is in quarantine, in order of id."""
    folder = folder_of(meta)
    if not folder.is_dir():
        return ()
    return tuple(each for entry in sorted(folder.iterdir()) if (each := _quarantined(entry)) is not None)


def put_back(identifiers: Iterable[str], meta: Path, data: Path, kind: str = "auto") -> tuple[str, ...]:
    """Given ids in quarantine, put each message back exactly as it was; return the ids.

    Raise MessageMissing before anything is changed; TargetIsLive, and where the spool has something else under an id.
    """
    refuse_unless_copy(meta, data, kind)
    held: dict[str, list[Quarantined]] = {}
    for each in listed(meta):
        held.setdefault(each.id, []).append(each)
    wanted = list(dict.fromkeys(identifiers))
    for identifier in wanted:
        if identifier not in held:
            raise errors.MessageMissing(
                f"message {identifier} is not in quarantine",
                remedy="`kumodr spool quarantine list` shows what is",
            )
    if not wanted:
        return ()
    with ExitStack() as opened:
        halves = _open(opened, meta, data, kind)
        for identifier in wanted:
            for each in held[identifier]:
                _put_back(each, halves)
    return tuple(wanted)


def _open(opened: ExitStack, meta: Path, data: Path, kind: str) -> dict[str, Writer]:
    halves: dict[str, Writer] = {}
    for name, path in (("meta", meta), ("data", data)):
        halves[name] = open_writer(path, kind, folder_of(meta) / f".rocksdb-log-{name}")
        opened.callback(halves[name].close)
    return halves


def _keep(folder: Path, identifier: str, finding: Finding, halves: dict[str, Writer]) -> bool:
    """Write the message's folder durably. Return False where the spool has nothing of it any more."""
    key = bytes.fromhex(identifier)
    parts = {name: value for name, half in halves.items() if (value := half.get(key)) is not None}
    if not parts:
        return False
    target = _free_name(folder, identifier, parts)
    if target is None:
        return True
    attributes = {name: dict(halves[name].attributes(key)) for name in parts}
    reason = {"id": identifier, "reason": finding.reason, "detail": finding.detail, "attributes": attributes}
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    for name, value in parts.items():
        _write(temporary / _PARTS[name], value)
    _write(temporary / "reason.json", json.dumps(reason, indent=2).encode() + b"\n")
    sync_directory(temporary)
    temporary.rename(target)
    return True


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _free_name(folder: Path, identifier: str, parts: dict[str, bytes]) -> Path | None:
    """Return a folder name that is free, or None where a folder of that message already has these very parts."""
    name = identifier if len(identifier) <= 64 else f"{identifier[:32]}-{sha256(identifier.encode()).hexdigest()[:24]}"
    for target in _names(folder, name):
        if not target.exists():
            return target
        if all(_part(target, each) == value for each, value in parts.items()):
            return None
    return None


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    number = 2
    while True:
        yield folder / f"{name}.{number}"
        number += 1


def _part(folder: Path, name: str) -> bytes | None:
    try:
        descriptor = open_read_only(str(folder / _PARTS[name]))
    except FileNotFoundError:
        return None
    try:
        return read_whole(descriptor, _LARGEST_PART)
    finally:
        os.close(descriptor)


def _quarantined(folder: Path) -> Quarantined | None:
    """Return what a folder holds; None for what is unfinished, or none of ours."""
    reason = None if folder.name.startswith(".") else _reason(folder)
    if reason is None:
        return None
    sizes = {
        name: (folder / part).stat().st_size if (folder / part).exists() else None for name, part in _PARTS.items()
    }
    return Quarantined(
        id=reason["id"],
        reason=str(reason.get("reason", "")),
        detail=str(reason.get("detail", "")),
        folder=folder,
        meta_size=sizes["meta"],
        body_size=sizes["data"],
    )


def _reason(folder: Path) -> dict[str, Any] | None:
    try:
        descriptor = open_read_only(str(folder / "reason.json"))
    except OSError:
        return None
    try:
        document = json.loads(read_whole(descriptor, _LARGEST_REASON))
        bytes.fromhex(document["id"])
    except (ValueError, KeyError, TypeError, OSError):
        return None
    finally:
        os.close(descriptor)
    return document


def _attributes(reason: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the modes and owners that were noted, and nothing else that may stand there."""
    noted = reason.get("attributes")
    found: dict[str, dict[str, int]] = {}
    for name in _PARTS:
        values = noted.get(name) if isinstance(noted, dict) else None
        if isinstance(values, dict) and all(isinstance(values.get(each), int) for each in ("mode", "uid", "gid")):
            found[name] = {"mode": values["mode"] & 0o777, "uid": values["uid"], "gid": values["gid"]}
    return found


def _put_back(each: Quarantined, halves: dict[str, Writer]) -> None:
    key = bytes.fromhex(each.id)
    attributes = _attributes(_reason(each.folder) or {})
    parts = {name: value for name in _PARTS if (value := _part(each.folder, name)) is not None}
    for name, value in parts.items():
        if halves[name].get(key) not in (None, value):
            raise errors.TargetIsLive(
                f"message {each.id} is not put back: the spool's {name} has something else under this id",
                remedy=f"look at both; the quarantined one is in {each.folder}",
            )
    for name in ("data", "meta"):
        if name in parts:
            halves[name].put(key, parts[name], attributes.get(name, {}))
    done = each.folder.with_name(f".{each.folder.name}.{os.getpid()}")
    each.folder.rename(done)
    shutil.rmtree(done)
    sync_directory(each.folder.parent)
