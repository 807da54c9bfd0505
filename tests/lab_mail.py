"""Mail for a lab site, handed in message by message, and what the world knows of each."""

import gzip
import json
import random
import re
import smtplib
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from kumodr.lab.account import taken
from kumodr.lab.kumod.ids import TICKS_BEFORE_1970, encode
from kumodr.lab.site import Site

_OTHER_NODE = bytes.fromhex("020000000001")


@dataclass(frozen=True)
class Mail:
    """One message that the server acknowledged: its id, whom it is for, its end as it was handed in; times in ns."""

    id: str
    load_id: str
    recipients: tuple[str, ...]
    content: bytes
    acknowledged: int


@dataclass
class Post:
    """Who sends: every acknowledgement is kept, a connection that breaks before it is not."""

    site: Site
    sent: list[Mail] = field(default_factory=list)
    handed_in: int = 0

    def one_by_one(self, recipients: Sequence[str], size: int, count: int = 1) -> None:
        """Hand in messages by SMTP; a message to several becomes one for each. Raise where the server goes away."""
        host, _, port = self.site.smtp.rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=10) as server:
            server.ehlo("load.test")
            for _ in range(count):
                load_id, content = self._content(size)
                server.mail("sender@load.test")
                for each in recipients:
                    server.rcpt(each)
                code, text = server.data(content)
                acknowledged = time.time_ns()
                if code != 250:
                    raise smtplib.SMTPDataError(code, text)
                ids = re.findall("[0-9a-f]{32}", text.decode())
                assert len(set(ids)) == len(recipients), text
                for key, recipient in zip(dict.fromkeys(ids), recipients, strict=True):
                    self.sent.append(Mail(key, load_id, (recipient,), content, acknowledged))

    def together(self, recipients: Sequence[str], size: int) -> None:
        """Hand in one message that stays one, for several recipients: as another node transfers it."""
        load_id, content = self._content(size)
        prior = encode(time.time_ns() // 100 + TICKS_BEFORE_1970, random.getrandbits(14), _OTHER_NODE).hex()
        meta = {"reception_protocol": "ESMTP", "xfer_queue_info": {"num_attempts": 0}}
        head = {"id": prior, "sender": "sender@load.test", "recipient": list(recipients), "meta": meta}
        payload = gzip.compress(json.dumps(head).encode() + b"\n" + content)
        answer = httpx.post(f"{self.site.http}/api/xfer/inject/v1", content=payload, timeout=10)
        acknowledged = time.time_ns()
        assert answer.status_code == 200, answer.text
        self.sent.append(Mail(answer.json()["id"], load_id, tuple(recipients), content, acknowledged))

    def in_the_background(self, recipient: str, size: int, count: int) -> threading.Thread:
        """Hand in messages on a thread, until the server goes away."""

        def send() -> None:
            try:
                self.one_by_one([recipient], size, count)
            except (OSError, smtplib.SMTPException):
                return

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    def _content(self, size: int) -> tuple[str, bytes]:
        self.handed_in += 1
        load_id = f"M-{self.handed_in}"
        text = random.Random(self.handed_in).randbytes(size // 2).hex()
        lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))
        return load_id, f"Subject: {load_id}\r\nX-Load-Id: {load_id}\r\n\r\n{lines}\r\n".encode()


def deliveries(world: Path) -> dict[tuple[str, str], list[int]]:
    """When the sink took each message for each recipient, in ns, by load id and recipient."""
    found: dict[tuple[str, str], list[int]] = {}
    for each in taken(world):
        found.setdefault((each.load_id, each.recipient), []).append(each.time)
    return found


def unfinished(sent: Iterable[Mail], took: dict[tuple[str, str], list[int]], begun: int, ended: int) -> list[Mail]:
    """What a state must hold: acknowledged before `begun`, and by `ended` not taken for a recipient whom the sink
    refuses nothing for good."""
    return [
        each
        for each in sent
        if each.acknowledged < begun
        and any(
            not recipient.startswith("refuse") and min(took.get((each.load_id, recipient), [ended + 1])) > ended
            for recipient in each.recipients
        )
    ]
