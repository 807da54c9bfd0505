"""One message through the mail server: handed in by SMTP, followed by its id through log and spool to its end."""

import re
import smtplib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from itertools import count
from pathlib import Path
from typing import Literal

from kumodr import errors
from kumodr.clock import Clock
from kumodr.ledger.records import Record, parse
from kumodr.ledger.segments import read_records, segment_paths
from kumodr.mailserver.http import MailServer

_IDS = re.compile(r"ids=([0-9a-f]{32})", re.IGNORECASE)
_ENDS = ("Delivery", "Bounce", "Expiration", "AdminBounce", "XferOut")
_LOOK_EVERY = 20
_CLOCKS_DIFFER = timedelta(seconds=5)

How = Literal["delivered", "bounced", "transferred", "left the spool", "waiting"]


@dataclass(frozen=True)
class Sent:
    """A message that the server took: its id (None where the answer names none), the answer, and when that came."""

    id: str | None
    answer: str
    accepted: datetime
    seconds: float


@dataclass(frozen=True)
class Followed:
    """What became of it: how it ended, when, and the last thing that a receiving server said."""

    how: How
    ended: datetime | None
    response: str
    attempts: int


def send(address: str, sender: str, recipient: str, clock: Clock, *, timeout: float = 30.0) -> Sent:
    """Given HOST:PORT and an envelope, hand in a small message.

    Raise MailServerSilent, MailServerRefuses, UsageWrong for an address that is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise errors.UsageWrong(f"{address} is no SMTP address", remedy="give HOST:PORT")
    began = clock()
    message = _message(sender, recipient, began)
    try:
        with smtplib.SMTP(host.strip("[]"), int(port), local_hostname=socket.gethostname(), timeout=timeout) as server:
            server.ehlo_or_helo_if_needed()
            _must_be(250, server.mail(sender), address)
            _must_be(250, server.rcpt(recipient), address)
            answer = _must_be(250, server.data(message.as_bytes()), address)
    except smtplib.SMTPException as error:
        raise errors.MailServerRefuses(f"the mail server at {address} refuses the message: {_line(error)}") from error
    except OSError as error:
        raise errors.MailServerSilent(f"the mail server at {address} does not answer SMTP: {error}") from error
    accepted = clock()
    found = _IDS.search(answer)
    return Sent(found[1].lower() if found else None, answer, accepted, (accepted - began).total_seconds())


def follow(
    sent: Sent, logs: Sequence[Path], server: MailServer | None, clock: Clock, pause: Callable[[], None], limit: float
) -> Followed:
    """Given what was sent, where the logs are and how the server is asked, wait for its end at most `limit` seconds.

    The log says how it ended, but it may lag (an open segment is written in steps of 128 KiB, facts §3.2); the spool
    says at once that it did. A message that left the spool is waited for in the log until the limit.
    """
    until = sent.accepted + timedelta(seconds=limit)
    gone = server is None
    records: list[Record] = []
    for turn in count():
        if not gone and server is not None and sent.id is not None:
            gone = not server.holds(sent.id)
        last_turn = clock() >= until
        if gone or last_turn or turn % _LOOK_EVERY == 0:  # reading logs costs more than asking
            records = list(_records(sent, logs))
        end = next((each for each in records if each.type in _ENDS), None)
        if end is not None:
            how: How = {"Delivery": "delivered", "XferOut": "transferred"}.get(end.type, "bounced")  # pyright: ignore
            return Followed(how, end.event_time, f"{end.code} {end.content}".strip(), _attempts(records))
        if last_turn:
            last = records[-1] if records else None
            response = f"{last.code} {last.content}".strip() if last is not None and last.code else ""
            left = gone and server is not None
            return Followed("left the spool" if left else "waiting", None, response, _attempts(records))
        pause()
    raise AssertionError("counting has no end")


def _records(sent: Sent, logs: Sequence[Path]) -> Iterator[Record]:
    """Yield the message's records, in order, of the segments that were written since it was handed in."""
    since = (sent.accepted - _CLOCKS_DIFFER).timestamp()
    wanted = (sent.id or "").encode()
    if not wanted:
        return
    for directory in logs:
        for path in segment_paths(directory):
            try:
                if path.stat().st_mtime < since:
                    continue
            except FileNotFoundError:
                continue
            for line in read_records(path):
                record = parse(line) if wanted in line else None
                if record is not None and record.id == sent.id:
                    yield record


def _attempts(records: Sequence[Record]) -> int:
    return sum(1 for each in records if each.type in ("Delivery", "TransientFailure", "Bounce"))


def _message(sender: str, recipient: str, now: datetime) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = "kumodr mail test"
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<kumodr-{now.timestamp():.6f}@{socket.gethostname()}>"
    message.set_content("A test message of kumodr: the mail server takes mail and sends it on.\n")
    return message


def _must_be(code: int, answer: tuple[int, bytes], address: str) -> str:
    text = answer[1].decode(errors="replace")
    if answer[0] != code:
        reason = f"the mail server at {address} refuses the message: {answer[0]} {' '.join(text.split())[:200]}"
        raise errors.MailServerRefuses(reason)
    return text


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
