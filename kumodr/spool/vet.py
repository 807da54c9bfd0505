"""Name every message that KumoMTA would delete, expire, ignore or choke on when it starts on a spool.

Only looks; `quarantine.py` takes out. What KumoMTA does at start was measured on a real server.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from kumodr import errors
from kumodr.spool.kind import kind_of

MAX_AGE = timedelta(days=7)
"""KumoMTA's default `max_age`, counted from the time inside the id."""


@dataclass(frozen=True)
class Finding:
    """One thing that KumoMTA would not simply deliver.

    `reason` is one of the constants below, `effect` what KumoMTA does about it at start, `detail` what exactly is the
    matter. `id` is None where it concerns a whole half of the spool and not one message.
    """

    reason: str
    effect: str
    detail: str = ""
    id: str | None = None


KEY_LENGTH = "key is not 16 bytes"
NO_TIME = "id carries no time"
FUTURE = "created in the future"
META_UNREADABLE = "metadata file closed to the spool's owner"
UNPARSABLE = "metadata cannot be parsed"
NO_QUEUE = "queue name cannot be computed"
TOO_OLD = "older than max_age"
EXPIRED = "past its own expiry time"
BODY_UNREADABLE = "body file closed to the spool's owner"
NO_BODY = "metadata without a body"
NO_META = "body without metadata"
PENDING_TRANSFER = "waiting for transfer to another node"
FOREIGN = "file that is no message"
DAMAGED = "database is damaged"
LOG_DAMAGED = "write-ahead log is damaged"
NO_CURRENT = "CURRENT is missing"
CLOSED_DIRECTORY = "directory is closed to group and others"

EFFECTS = {
    KEY_LENGTH: "KumoMTA stops loading there and never sees the messages behind it",
    NO_TIME: "KumoMTA's process dies while it loads the spool",
    FUTURE: "KumoMTA does not load it until a restart after that time",
    META_UNREADABLE: "KumoMTA deletes the message and logs nothing",
    UNPARSABLE: "KumoMTA deletes the message and logs nothing",
    NO_QUEUE: "KumoMTA logs an Expiration and deletes the message",
    TOO_OLD: "KumoMTA logs an Expiration and deletes the message",
    EXPIRED: "KumoMTA logs an Expiration and deletes the message",
    BODY_UNREADABLE: "every delivery attempt fails until the message expires",
    NO_BODY: "every delivery attempt fails until the message expires",
    NO_META: "KumoMTA never looks at it and never removes it",
    PENDING_TRANSFER: "KumoMTA goes on pushing it to that node, whatever the policy says",
    FOREIGN: "KumoMTA does not load it",
    DAMAGED: "KumoMTA may start all the same, and not see what is behind the damage",
    LOG_DAMAGED: "KumoMTA starts all the same, without the newest messages",
    CLOSED_DIRECTORY: "started as root, KumoMTA may make a new database over this one",
}


def finding(reason: str, detail: str = "", key: bytes | None = None) -> Finding:
    """Given one of the reasons, return the finding with what KumoMTA does about it."""
    return Finding(reason, EFFECTS[reason], detail, None if key is None else key.hex())


@dataclass(frozen=True)
class Vetted:
    """The findings, and how many messages each half holds. The counts are whole where no finding says DAMAGED."""

    findings: tuple[Finding, ...]
    meta_count: int = 0
    data_count: int = 0


def vet(meta: Path, data: Path, kind: str, now: datetime, max_age: timedelta = MAX_AGE) -> tuple[Finding, ...]:
    """Given both halves' directories, return a finding for each message that would not simply be loaded and sent.

    At most one for each message: the first thing that KumoMTA would meet. `now` is when KumoMTA would start; `max_age`
    the largest that the policy sets. Reading is done in a process of its own, on a snapshot; nothing is changed.
    Damage is a finding, not an error. Raise SpoolMissing, SpoolUnreadable, SpoolChanging, DiskFull.
    """
    return vet_and_count(meta, data, kind, now, max_age).findings


def vet_and_count(meta: Path, data: Path, kind: str, now: datetime, max_age: timedelta = MAX_AGE) -> Vetted:
    """As `vet`, and count the messages on the same way through both halves."""
    from kumodr.spool.snapshot import snapshot

    found = [each for half in (meta, data) for each in _of_directory(half, kind)]
    counts = Counter[str]()
    if any(each.reason == NO_CURRENT for each in found):
        return Vetted(tuple(found))
    try:
        with snapshot(meta, data, kind) as held:
            for examination in held.examine_shared("vet", now=now.isoformat(), max_age=max_age.total_seconds()):
                for answer in examination.answers():
                    if "finding" in answer:
                        found.append(Finding(**answer["finding"]))
                    else:
                        counts.update(answer["end"])
    except errors.SpoolDamaged as error:
        found.append(finding(DAMAGED, error.what))
    found.sort(key=lambda each: (each.reason == DAMAGED, each.id or ""))
    return Vetted(tuple(dict.fromkeys(found)), counts["meta"], counts["data"])


def _of_directory(half: Path, kind: str) -> Iterator[Finding]:
    """Yield what is wrong with a RocksDB half before it is opened."""
    if kind_of(half, kind) != "rocksdb":
        return
    status = os.stat(half)
    names = os.listdir(half)
    if "CURRENT" not in names:
        if any(name.endswith(".log") and name[:-4].isdigit() for name in names):
            effect = "KumoMTA does not start: it finds a write-ahead log and no database"
        else:
            effect = "KumoMTA makes a new, empty database and deletes every table of this one"
        yield Finding(NO_CURRENT, effect, str(half))
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o050 != 0o050 and mode & 0o005 != 0o005:
        yield finding(CLOSED_DIRECTORY, f"{half} has mode {mode:04o}; KumoMTA's packages use 2770")
