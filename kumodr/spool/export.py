"""Write messages out as files that mail programs read: `.eml`, mbox or maildir.

`.eml` and maildir files are the message's bytes exactly. An mbox is of the mboxrd kind, which can be turned back
exactly: after a line that begins with `From ` come the bytes, with `>` before every line that is `From ` behind any
number of `>`, and one more line feed at the end.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from kumodr import errors
from kumodr.spool.identifier import FAR_FUTURE, created
from kumodr.spool.metadata import MetadataUnreadable
from kumodr.spool.reader import Spool

Format = Literal["eml", "mbox", "maildir"]

_FROM = re.compile(rb"^(>*From )", re.MULTILINE)
_UNFIT = re.compile(r"[^\x21-\x7e]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Exported:
    """How many messages were written, and the ids that were passed over because the spool has no body of them."""

    written: int
    without_body: tuple[str, ...]


def export(spool: Spool, identifiers: Iterator[str], target: Path, form: Format) -> Exported:
    """Given ids of a spool, write each message below `target`, a new or empty directory.

    eml: `<id>.eml`. mbox: `messages.mbox`. maildir: `new/<time>.<id>.kumodr`. Files are 0600, written under another
    name until they are whole. Raise TargetNotEmpty, DiskFull, UsageWrong for what is no id.
    """
    missing: list[str] = []
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise errors.TargetNotEmpty(f"{target} is not an empty directory")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        bodies = _bodies(spool, identifiers, missing)
        if form == "mbox":
            written = _export_mbox(spool, bodies, target / "messages.mbox")
        else:
            written = _export_files(bodies, target, form)
    except OSError as error:
        raise errors.DiskFull(f"{target} cannot be written: {error.strerror or error}") from error
    return Exported(written, tuple(missing))


def _bodies(spool: Spool, identifiers: Iterator[str], missing: list[str]) -> Iterator[tuple[str, bytes]]:
    for identifier in identifiers:
        try:
            body = spool.body(identifier)
        except errors.MessageMissing:
            missing.append(identifier)
        else:
            yield identifier.replace("-", "").lower(), body


def _export_files(bodies: Iterator[tuple[str, bytes]], target: Path, form: Format) -> int:
    if form == "maildir":
        for name in ("tmp", "new", "cur"):
            (target / name).mkdir(mode=0o700)
    count = 0
    for identifier, body in bodies:
        if form == "maildir":
            name = f"{int(_time_of(identifier).timestamp())}.{identifier}.kumodr"
            unfinished, finished = target / "tmp" / name, target / "new" / name
        else:
            unfinished, finished = target / f".{identifier}.unfinished", target / f"{identifier}.eml"
        _write(unfinished, [body])
        unfinished.rename(finished)
        count += 1
    return count


def _export_mbox(spool: Spool, bodies: Iterator[tuple[str, bytes]], path: Path) -> int:
    unfinished = path.with_name(".messages.mbox.unfinished")
    count = 0

    def pieces() -> Iterator[bytes]:
        nonlocal count
        for identifier, body in bodies:
            yield from (_from_line(spool, identifier), _FROM.sub(rb">\1", body), b"\n")
            count += 1

    _write(unfinished, pieces())
    unfinished.rename(path)
    return count


def _from_line(spool: Spool, identifier: str) -> bytes:
    try:
        sender = spool.metadata(identifier).sender
    except (errors.MessageMissing, MetadataUnreadable):
        sender = ""
    return f"From {_UNFIT.sub('_', sender) or 'MAILER-DAEMON'} {_time_of(identifier):%a %b %d %H:%M:%S %Y}\n".encode()


def _time_of(identifier: str) -> datetime:
    made = created(bytes.fromhex(identifier))
    return _EPOCH if made is None or made == FAR_FUTURE else made


def _write(path: Path, pieces: Iterator[bytes] | list[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for piece in pieces:
            file.write(piece)
