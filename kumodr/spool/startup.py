"""What KumoMTA would do with each message when it starts: the rows of its start-up, in its order."""

import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.spool import vet
from kumodr.spool.examine import open_half
from kumodr.spool.identifier import FAR_FUTURE, LENGTH, TICKS_BEFORE_1970, created
from kumodr.spool.localdisk import Closed, Foreign, MessageFile, read_message, walk_closed
from kumodr.spool.metadata import XFER_SUFFIX, MetadataUnreadable, QueueUnknown, parse, queue_name
from kumodr.spool.vet import Finding, finding

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UUID = struct.Struct(">IHH")

Entry = tuple[bytes, bytes | None]
"""A key and its value; None where the file is there but closed to the spool's owner."""

Note = Callable[[bytes, bytes | None, bool], None]
"""Takes a message's key, its metadata as stored, and whether that is known to be of the plainest form."""


@dataclass
class Counts:
    """How many messages each half holds; whole only when everything was read."""

    meta: int = 0
    data: int = 0


def what_would_happen(
    halves: Mapping[str, Any],
    scratch: Path,
    now: datetime,
    max_age: timedelta,
    counts: Counts,
    share: int | None = None,
    note: Note | None = None,
) -> Iterator[Finding]:
    """Given how both halves are described (`examine.py`), yield the findings, and count into `counts`.

    Damage is a finding, and ends the reading. With a `share` only its messages are looked at.
    `note` is called with every message that has metadata.
    """
    notes: list[Finding] = []
    try:
        meta = _opened("meta", halves["meta"], scratch, notes, share, values=True)
        data = _opened("data", halves["data"], scratch, notes, share, values=False)
        yield from notes
        notes.clear()
        yield from _of_messages(meta, data, now, max_age, counts, note)
    except errors.SpoolDamaged as error:
        yield finding(vet.DAMAGED, error.what)
    yield from notes


def _opened(
    name: str, half: Mapping[str, Any], scratch: Path, notes: list[Finding], share: int | None, *, values: bool
) -> Iterator[Entry]:
    if half["kind"] == "localdisk":
        return _of_files(Path(half["path"]), notes, values=values)
    try:
        reader, damage = open_half(half, scratch / name, share)
    except errors.SpoolDamaged as error:
        raise errors.SpoolDamaged(f"{name}: {error.what}") from error
    notes += [finding(vet.LOG_DAMAGED, f"{name}: {each}") for each in damage]
    return _of_database(name, reader.entries() if values else zip(reader.ids(), repeat(b""), strict=False))


def _of_database(name: str, entries: Iterator[tuple[bytes, bytes]]) -> Iterator[Entry]:
    try:
        yield from entries
    except errors.SpoolDamaged as error:
        raise errors.SpoolDamaged(f"{name}: {error.what}") from error


def _of_files(half: Path, notes: list[Finding], *, values: bool) -> Iterator[Entry]:
    """Yield the messages of a LocalDisk half; whether a file is closed is judged for the half's owner, not for us."""
    owner = os.stat(half)
    closed: list[str] = []
    for found in walk_closed(half):
        if isinstance(found, Foreign):
            notes.append(finding(vet.FOREIGN, f"{half}/{found.path}"))
            continue
        closed = [path for path in closed if found.path.startswith(f"{path}/")]
        if isinstance(found, Closed):
            if not closed:
                raise errors.SpoolUnreadable(f"{half}/{found.path} cannot be read: its folder is closed to this user")
            yield found.key, None
            continue
        may_read = _open_to(owner, found.status, 0o5 if not isinstance(found, MessageFile) else 0o4)
        if not isinstance(found, MessageFile):
            closed += [] if may_read else [found.path]
        elif closed or not may_read:
            yield found.key, None
        elif not values:
            yield found.key, b""
        elif (message := read_message(half, found.path)) is not None:
            yield found.key, message[0]


def _open_to(owner: os.stat_result, status: os.stat_result, bits: int) -> bool:
    """Say whether the owner of the spool's directory has these permission bits on something in it."""
    if status.st_uid == owner.st_uid:
        bits <<= 6
    elif status.st_gid == owner.st_gid:
        bits <<= 3
    return status.st_mode & bits == bits


def _of_messages(
    meta: Iterator[Entry],
    data: Iterator[Entry],
    now: datetime,
    max_age: timedelta,
    counts: Counts,
    note: Note | None,
) -> Iterator[Finding]:
    plain = _plain_judge(now, max_age)
    left, right = next(meta, None), next(data, None)
    while True:
        if right is not None and (left is None or right[0] < left[0]):
            counts.data += 1
            yield finding(vet.NO_META, "", right[0])
            right = next(data, None)
        elif left is not None:
            counts.meta += 1
            counts.data += right is not None and right[0] == left[0]
            body = right if right is not None and right[0] == left[0] else None
            if body is not None and body[1] is not None and plain(left[0], left[1]):
                if note is not None:
                    note(left[0], left[1], True)
                left, right = next(meta, None), next(data, None)
                continue
            if note is not None:
                note(left[0], left[1], False)
            reason = _of_metadata(left[0], left[1], now, max_age) or _of_body(left[0], body) or _of_queue(left)
            if reason is not None:
                yield reason
            left, right = next(meta, None), right if body is None else next(data, None)
        else:
            return


_TEXT = rb'"[ !#-\[\]-~]*"'
_PLAIN = re.compile(
    rb'\{"sender":' + _TEXT + rb',"recipient":' + _TEXT + rb',"meta":\{(?:' + _TEXT + rb":" + _TEXT + rb"(?:,"
    + _TEXT + rb":" + _TEXT + rb')*)?\},"schedule":null\}'
)  # fmt: skip
"""Metadata of one recipient as KumoMTA writes it, all of it plain texts: it parses, and has a queue."""


def _plain_judge(now: datetime, max_age: timedelta) -> Callable[[bytes, bytes | None], bool]:
    """Given when KumoMTA starts, return what says of most messages, at little cost, that nothing is the matter.

    True is certain: a time-based id of an age within bounds, and metadata of the plainest form. False says nothing.
    """
    ticks_now = int((now - _EPOCH) / timedelta(microseconds=1)) * 10 + TICKS_BEFORE_1970
    oldest = ticks_now - int(max_age / timedelta(microseconds=1)) * 10 + 10
    transfer = XFER_SUFFIX.encode()

    def plain(key: bytes, raw: bytes | None) -> bool:
        if raw is None or len(key) != LENGTH or key[6] >> 4 != 1:
            return False
        low, middle, high = _UUID.unpack_from(key)
        made = low | middle << 32 | (high & 0x0FFF) << 48
        return oldest < made < ticks_now and _PLAIN.fullmatch(raw) is not None and transfer not in raw

    return plain


def _of_metadata(key: bytes, raw: bytes | None, now: datetime, max_age: timedelta) -> Finding | None:
    """Given a message, return why KumoMTA would not load it, or None."""
    if len(key) != LENGTH:
        return finding(vet.KEY_LENGTH, f"{len(key)} bytes", key)
    made = created(key)
    if made is None:
        return finding(vet.NO_TIME, f"UUID version {key[6] >> 4}", key)
    if made >= now:
        when = "after the year 9999" if made == FAR_FUTURE else made.isoformat()
        return finding(vet.FUTURE, f"created {when}", key)
    if raw is None:
        return finding(vet.META_UNREADABLE, "", key)
    try:
        metadata = parse(raw)
        queue_name(metadata)
    except MetadataUnreadable as error:
        return finding(vet.UNPARSABLE, str(error), key)
    except QueueUnknown as error:
        return finding(vet.NO_QUEUE, str(error), key)
    if now - made >= max_age:
        return finding(vet.TOO_OLD, f"created {made.isoformat()}", key)
    schedule = metadata.schedule
    if schedule is not None and schedule.expires is not None:
        due = max(now, schedule.first_attempt) if schedule.first_attempt else now
        if due >= schedule.expires:
            return finding(vet.EXPIRED, f"expires {schedule.expires.astimezone(UTC).isoformat()}", key)
    return None


def _of_body(key: bytes, body: Entry | None) -> Finding | None:
    if body is None:
        return finding(vet.NO_BODY, "", key)
    return finding(vet.BODY_UNREADABLE, "", key) if body[1] is None else None


def _of_queue(entry: Entry) -> Finding | None:
    """Given a message that would be loaded, say where a transfer to another node is pending."""
    key, raw = entry
    if raw is None or XFER_SUFFIX.encode() not in raw:
        return None
    queue = queue_name(parse(raw))
    return finding(vet.PENDING_TRANSFER, queue[:200], key) if queue.endswith(XFER_SUFFIX) else None
