"""Mail as a busy sender has it in its spool: made from a seed, neither noise nor one text repeated."""

import base64
import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

DESCRIPTION = (
    "mail of 2 to 40 kB: 40 % plain text, 45 % text with the same as HTML, 15 % with a base64 attachment; "
    "words by Zipf's law out of 6,000, pairs drawn afresh for each message"
)
_EPOCH_OF_UUID = datetime(1582, 10, 15, tzinfo=UTC)
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_NODE = 0x660AAECCDE59


@dataclass(frozen=True)
class Message:
    """One message: its 16-byte spool id, its metadata as KumoMTA stores it, its RFC 5322 bytes."""

    key: bytes
    meta: bytes
    body: bytes


def messages(size: int, seed: int, newest: datetime) -> Iterator[Message]:
    """Given how many bytes of bodies to make, yield messages of the hours before `newest`, oldest first.

    The same size, seed and time give the same messages.
    """
    chance = random.Random(seed)  # noqa: S311 — a seed must give the same mail again
    phrases = _phrases(chance)
    made, number = 0, 0
    begun = newest - timedelta(hours=6)
    step = timedelta(hours=6) / max(size // 11_000, 1)
    while made < size:
        created = min(begun + step * number, newest)
        message = _message(chance, phrases, number, created)
        made += len(message.body)
        number += 1
        yield message


def _phrases(chance: random.Random) -> list[str]:
    """Return a stock of word pairs; words are common by their rank, and letters as in English."""
    weights = [26 - rank for rank in range(26)]
    words = ["".join(chance.choices(_LETTERS, weights, k=2 + chance.randrange(9))) for _ in range(6000)]
    ranks = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    drawn = chance.choices(words, cum_weights=ranks, k=400_000)
    return [f"{one} {two}" for one, two in zip(drawn[::2], drawn[1::2], strict=True)]


def _message(chance: random.Random, phrases: list[str], number: int, created: datetime) -> Message:
    sender, recipient = f"news-{number % 97}@sender-{number % 31}.test", f"reader{number}@mail-{number % 211}.test"
    key = id_of(created, number)
    kind = chance.random()
    text = _text(chance, phrases, 2_000 + chance.randrange(6_000))
    head = (
        f"Received: from app-{number % 7}.test (10.1.{number % 200}.7)\r\n by mx-1.test (KumoMTA)\r\n with ESMTP id "
        f"{key.hex()}\r\n for <{recipient}>;\r\n {created:%a, %d %b %Y %H:%M:%S} +0000\r\n"
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {chance.choice(phrases)} {chance.choice(phrases)}\r\n"
        f"Message-ID: <{chance.getrandbits(96):024x}@sender-{number % 31}.test>\r\nMIME-Version: 1.0\r\n"
    )
    if kind < 0.40:
        body = f"{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}"
    elif kind < 0.85:
        body = _parts(head, "alternative", text, "text/html; charset=utf-8", _html(text))
    else:
        data = base64.encodebytes(chance.randbytes(6_000 + chance.randrange(18_000))).decode().replace("\n", "\r\n")
        body = _parts(head, "mixed", text, "application/pdf\r\nContent-Transfer-Encoding: base64", data)
    meta = {
        "sender": sender,
        "recipient": recipient,
        "meta": {
            "tenant": f"tenant-{number % 31}",
            "campaign": f"campaign-{number % 13}",
            "reception_protocol": "ESMTP",
            "received_from": f"10.1.{number % 200}.7:{20_000 + number % 40_000}",
            "hostname": "mx-1.test",
        },
        "schedule": None,
    }
    return Message(key, json.dumps(meta, separators=(",", ":")).encode(), body.encode())


def id_of(created: datetime, number: int) -> bytes:
    """Return an id as KumoMTA makes it: a UUID of version 1."""
    ticks = (created - _EPOCH_OF_UUID) // timedelta(microseconds=1) * 10 + number % 10
    low, middle, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF
    clock = 0x80 | number >> 8 & 0x3F
    return uuid.UUID(fields=(low, middle, high | 0x1000, clock, number & 0xFF, _NODE)).bytes


def _text(chance: random.Random, phrases: list[str], size: int) -> str:
    drawn = chance.choices(phrases, k=size // 12)
    return "\r\n".join(" ".join(drawn[place : place + 6]) for place in range(0, len(drawn), 6)) + "\r\n"


def _html(text: str) -> str:
    rows = "".join(f'<tr><td class="body" align="left">{line}</td></tr>\r\n' for line in text.splitlines())
    return f'<html><body><table width="600" cellpadding="0">\r\n{rows}</table></body></html>\r\n'


def _parts(head: str, kind: str, text: str, type_of_second: str, second: str) -> str:
    return (
        f'{head}Content-Type: multipart/{kind}; boundary="=_part"\r\n\r\n'
        f"--=_part\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
        f"--=_part\r\nContent-Type: {type_of_second}\r\n\r\n{second}\r\n--=_part--\r\n"
    )
