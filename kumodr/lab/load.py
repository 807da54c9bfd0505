"""Send mail to a site and write down every acknowledgement, so that afterwards each message can be accounted for.

`python -m kumodr.lab.load --to 127.0.0.1:PORT --record FILE --rate 100 --seconds 30`

The record has a line for each message: acknowledged, with the id in the server's answer; refused; or broken off, when
the connection ended before the answer (then nobody knows, and the sender would send it again).
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import uvloop

_IDS = re.compile(rb"ids=([0-9a-f,]+)")
_WORDS = 4096
_WHOLE = ("count", "size", "connections", "tenants", "domains", "seed")


@dataclass(frozen=True)
class Load:
    """What to send: `count` messages, or for `seconds`, at `rate` a second (0: as fast as can be), over `connections`.

    `size` is in bytes, of the body; `deferred`, `refused` are shares of recipients that the sink defers or refuses.
    """

    to: str
    record: Path
    rate: float = 100.0
    count: int | None = None
    seconds: float | None = None
    size: int = 4000
    connections: int = 4
    tenants: int = 5
    domains: int = 20
    deferred: float = 0.0
    refused: float = 0.0
    seed: int = 1
    name: str = "L"


@dataclass(frozen=True)
class LoadReport:
    """What came of it, and how fast it was acknowledged."""

    acknowledged: int
    refused: int
    broken_off: int
    seconds: float
    rate: float


async def run_load(load: Load, stop: asyncio.Event | None = None) -> LoadReport:
    """Given what to send, send it; ends by itself, or when `stop` is set. A server that is away is tried again."""
    sender = _Sender(load, stop or asyncio.Event())
    begun = time.monotonic()
    await asyncio.gather(*(sender.work(number) for number in range(load.connections)))
    took = time.monotonic() - begun
    os.close(sender.descriptor)
    counts = sender.counts
    return LoadReport(
        counts["acknowledged"], counts["refused"], counts["broken_off"], took, counts["acknowledged"] / max(took, 1e-9)
    )


class _Sender:
    def __init__(self, load: Load, stop: asyncio.Event) -> None:
        self._load = load
        self._stop = stop
        self._next = 0
        self._begun = time.monotonic()
        chance = random.Random(load.seed)
        text = " ".join(f"{chance.getrandbits(40):010x}" for _ in range(_WORDS))
        self._text = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)).replace("\r\n.", "\r\n ")
        load.record.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(load.record, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.counts = {"acknowledged": 0, "refused": 0, "broken_off": 0}

    async def work(self, _number: int) -> None:
        """Send over one connection until everything is sent."""
        host, _, port = self._load.to.rpartition(":")
        while (number := self._take()) is not None:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                await _code(reader)
                writer.write(b"EHLO load.test\r\n")
                await _code(reader)
            except (OSError, asyncio.IncompleteReadError, ValueError):
                self._next = min(self._next, number)
                await self._pause(0.05)
                continue
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                while number is not None and await self._send(reader, writer, number):
                    number = self._take()
            writer.close()

    def _take(self) -> int | None:
        """Return the number of the next message, or None at the end."""
        load = self._load
        over = load.seconds is not None and time.monotonic() - self._begun >= load.seconds
        if self._stop.is_set() or over or (load.count is not None and self._next >= load.count):
            return None
        self._next += 1
        return self._next - 1

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Send one message and record what came of it; say whether the connection can go on."""
        load = self._load
        if load.rate:
            wait = self._begun + number / load.rate - time.monotonic()
            if wait > 0:
                await self._pause(wait)
        load_id = f"{load.name}{load.seed}-{number:07d}"
        recipient = self._recipient(number)
        line = {"load_id": load_id, "recipient": recipient, "sent": time.time_ns()}
        begun = False
        try:
            writer.write(f"MAIL FROM:<sender@load.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
            first, second, third = await _code(reader), await _code(reader), await _code(reader)
            if third[0] != 354:
                self._write({**line, "end": "refused", "answer": max(first[0], second[0], third[0])}, "refused")
                return False
            begun = True
            writer.write(self._message(load_id, recipient, number))
            code, text = await _code(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            if begun:
                self._write({**line, "end": "broken_off"}, "broken_off")
            raise
        ids = _IDS.search(text)
        if code != 250:
            self._write({**line, "end": "refused", "answer": code}, "refused")
            return False
        found = ids[1].decode().split(",") if ids else []
        self._write({**line, "end": "acknowledged", "ids": found, "acknowledged": time.time_ns()}, "acknowledged")
        return True

    def _write(self, line: dict[str, object], end: str) -> None:
        self.counts[end] += 1
        os.write(self.descriptor, json.dumps(line).encode() + b"\n")

    def _recipient(self, number: int) -> str:
        part = random.Random(f"{self._load.seed}|{number}").random()
        kind = "ok"
        if part < self._load.deferred:
            kind = "defer"
        elif part < self._load.deferred + self._load.refused:
            kind = "refuse"
        return f"{kind}{number}@d{number % self._load.domains}.test"

    def _message(self, load_id: str, recipient: str, number: int) -> bytes:
        load = self._load
        at = number * 131 % (len(self._text) // 2)
        body = (self._text[at:] * (1 + load.size // max(1, len(self._text) - at)))[: load.size]
        return (
            f"From: sender@load.test\r\nTo: {recipient}\r\nSubject: load {number}\r\nX-Load-Id: {load_id}\r\n"
            f"X-Tenant: t{number % load.tenants}\r\nMessage-ID: <{load_id}@load.test>\r\n\r\n"
        ).encode() + (body.lstrip(".").replace("\n.", "\n ") + "\r\n.\r\n").encode()


async def _code(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    while True:
        line = await reader.readline()
        if len(line) < 4:
            raise ValueError("the server closed the connection")
        if line[3:4] != b"-":
            return int(line[:3]), line


def main() -> int:
    """Send, then print the report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m kumodr.lab.load")
    parser.add_argument("--to", required=True)
    parser.add_argument("--record", type=Path, required=True)
    for field in fields(Load):
        if field.name not in ("to", "record"):
            kind = int if field.name in _WHOLE else str if field.name == "name" else float
            parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    words = parser.parse_args()
    if words.count is None and words.seconds is None:
        parser.error("say --count or --seconds: a load ends by itself")

    async def sending() -> LoadReport:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await run_load(Load(**vars(words)), stop)

    report = uvloop.run(sending())
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
