"""Take messages out of a restored spool before a mail server starts on it, and put them back.

`<spool>/quarantine/<id>/` holds `meta.json` and `body.eml` exactly as they were stored, and `reason.json`. Nothing is
lost whenever this is killed: messages are written there durably (temporary folders, syncfs, rename, fsync) before they
are deleted from the spool, and put back durably before their folders are removed. A message that is in both places is
taken out, or put back, by the next run. Only a restored copy is ever changed: `copyrule.py`.

Metadata that was changed, and not taken out, is kept the same way: a folder with `meta.json` alone, in whose reason
stands the SHA-256 of what replaced it.
"""

import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import sync_directory, sync_filesystem
from kumodr.source import Progress
from kumodr.spool.copyrule import refuse_unless_copy
from kumodr.spool.openfile import open_read_only, read_whole
from kumodr.spool.vet import Finding
from kumodr.spool.writer import Writer, open_writer

FOLDER = "quarantine"
_AT_ONCE = 512
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
    replacement: str | None = None
    """The SHA-256 of the metadata that stands in the spool in place of this one; None where all was taken out."""


@dataclass(frozen=True)
class Change:
    """Metadata that is to be replaced: why, and the new bytes."""

    id: str
    reason: str
    detail: str
    replacement: bytes


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
    moved: list[str] = []
    wanted = [each for each in findings if each.id is not None]
    if not wanted:
        return Applied((), tuple(findings))
    with opened(meta, data, kind) as halves:
        for batch in take_out(wanted, len(wanted), meta, halves, progress):
            moved += batch
    return Applied(tuple(moved), tuple(each for each in findings if each.id is None))


@contextmanager
def opened(meta: Path, data: Path, kind: str) -> Generator[dict[str, Writer]]:
    """Given both halves' directories of a copy, give them open for changes, by name. Raise SpoolDamaged."""
    folder_of(meta).mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        halves: dict[str, Writer] = {}
        for name, path in (("meta", meta), ("data", data)):
            halves[name] = open_writer(path, kind, folder_of(meta) / f".rocksdb-log-{name}")
            stack.callback(halves[name].close)
        yield halves


def take_out(
    wanted: Iterable[Finding], total: int, meta: Path, halves: Mapping[str, Writer], progress: Progress
) -> Iterator[list[str]]:
    """Given findings with ids, move each message named there into quarantine, batch by batch, in bounded memory.

    Yield the ids of each batch that the spool had something of, when they are out. Raise DiskFull, SpoolDamaged.
    """
    folder, findings, done = folder_of(meta), iter(wanted), 0
    while batch := list(islice(findings, _AT_ONCE)):
        moved: list[str] = []
        made: list[tuple[Path, Path]] = []
        with _written_to(folder):
            for each in batch:
                identifier = each.id or ""
                key = bytes.fromhex(identifier)
                parts = {name: value for name, half in halves.items() if (value := half.get(key)) is not None}
                if parts:
                    moved.append(identifier)
                    made += _keep(folder, identifier, each.reason, each.detail, parts, halves, None)
            _commit(folder, made)
        keys = [bytes.fromhex(each) for each in moved]
        for name in ("data", "meta"):
            halves[name].delete(keys)
        done += len(batch)
        progress("moving messages to quarantine", done, total)
        yield moved


def change(
    wanted: Iterable[Change], total: int, meta: Path, halves: Mapping[str, Writer], progress: Progress
) -> Iterator[list[str]]:
    """Given new metadata for messages, keep what is stored in quarantine, then replace it, batch by batch.

    Yield the ids of each batch when it is done. Raise DiskFull, SpoolDamaged.
    """
    folder, changes, done = folder_of(meta), iter(wanted), 0
    while batch := list(islice(changes, _AT_ONCE)):
        made: list[tuple[Path, Path]] = []
        values: dict[bytes, bytes] = {}
        with _written_to(folder):
            for each in batch:
                key = bytes.fromhex(each.id)
                stored = halves["meta"].get(key)
                if stored is not None and stored != each.replacement:
                    digest = sha256(each.replacement).hexdigest()
                    made += _keep(folder, each.id, each.reason, each.detail, {"meta": stored}, halves, digest)
                    values[key] = each.replacement
            _commit(folder, made)
        halves["meta"].replace(values)
        done += len(batch)
        progress("taking off recipients", done, total)
        yield [key.hex() for key in values]


def listed(meta: Path) -> tuple[Quarantined, ...]:
    """Given the directory of `meta`, return what is in quarantine, in order of id."""
    return tuple(each_listed(meta))


def each_listed(meta: Path) -> Iterator[Quarantined]:
    """As `listed`, one by one."""
    folder = folder_of(meta)
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if (each := _quarantined(folder / name)) is not None:
            yield each


def put_back(
    identifiers: Iterable[str], meta: Path, data: Path, kind: str = "auto", reason: str | None = None
) -> tuple[str, ...]:
    """Given ids in quarantine, put each message back exactly as it was; return the ids.

    With a `reason`, only what was taken out for it: a message that was held comes back without the recipients that were
    taken off. Raise MessageMissing before anything is changed; TargetIsLive, and where the spool has something else
    under an id.
    """
    refuse_unless_copy(meta, data, kind)
    held: dict[str, list[Quarantined]] = {}
    for each in each_listed(meta):
        if reason is None or each.reason == reason:
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
    with opened(meta, data, kind) as halves:
        for identifier in wanted:
            for each in sorted(held[identifier], key=lambda each: each.replacement is not None):
                _put_back(each, halves)
    return tuple(wanted)


def forget(each: Quarantined, halves: Mapping[str, Writer]) -> bool:
    """Given a message in quarantine that is to stay in the spool, remove its folder where the spool has all of it."""
    key = bytes.fromhex(each.id)
    parts = {name: value for name in _PARTS if (value := _part(each.folder, name)) is not None}
    if not parts or any(halves[name].get(key) != value for name, value in parts.items()):
        return False
    _remove(each.folder)
    return True


@contextmanager
def _written_to(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise errors.DiskFull(f"{folder} cannot be written: {error.strerror or error}") from error


def _keep(
    folder: Path,
    identifier: str,
    reason: str,
    detail: str,
    parts: Mapping[str, bytes],
    halves: Mapping[str, Writer],
    replacement: str | None,
) -> list[tuple[Path, Path]]:
    """Write the parts to a temporary folder; return it with its final name. Empty where they are kept already."""
    key = bytes.fromhex(identifier)
    target = _free_name(folder, identifier, parts)
    if target is None:
        return []
    attributes = {name: dict(halves[name].attributes(key)) for name in parts}
    document = {"id": identifier, "reason": reason, "detail": detail, "attributes": attributes}
    if replacement is not None:
        document["replacement"] = replacement
    temporary = folder / f".{target.name}.{os.getpid()}"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(mode=0o700)
    for name, value in parts.items():
        _write(temporary / _PARTS[name], value)
    _write(temporary / "reason.json", json.dumps(document, indent=2).encode() + b"\n")
    return [(temporary, target)]


def _commit(folder: Path, made: Sequence[tuple[Path, Path]]) -> None:
    """Make what was written durable, then give it its names, durably."""
    if made:
        sync_filesystem(folder)
        for temporary, target in made:
            temporary.rename(target)
        sync_directory(folder)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _free_name(folder: Path, identifier: str, parts: Mapping[str, bytes]) -> Path | None:
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
        replacement=reason.get("replacement") if isinstance(reason.get("replacement"), str) else None,
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


def _put_back(each: Quarantined, halves: Mapping[str, Writer]) -> None:
    key = bytes.fromhex(each.id)
    attributes = _attributes(_reason(each.folder) or {})
    parts = {name: value for name in _PARTS if (value := _part(each.folder, name)) is not None}
    for name, value in parts.items():
        stored = halves[name].get(key)
        if each.replacement is not None and stored is None:
            raise errors.MessageMissing(
                f"message {each.id} is not in the spool, only its metadata in {each.folder}",
                remedy="put the message itself back first",
            )
        if stored is not None and stored != value and sha256(stored).hexdigest() != each.replacement:
            raise errors.TargetIsLive(
                f"message {each.id} is not put back: the spool's {name} has something else under this id",
                remedy=f"look at both; the quarantined one is in {each.folder}",
            )
    for name in ("data", "meta"):
        if name in parts:
            halves[name].put(key, parts[name], attributes.get(name, {}))
    _remove(each.folder)


def _remove(folder: Path) -> None:
    done = folder.with_name(f".{folder.name}.{os.getpid()}")
    folder.rename(done)
    shutil.rmtree(done)
    sync_directory(folder.parent)
