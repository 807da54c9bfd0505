"""The world's mail servers: one SMTP server that takes, defers or refuses, and remembers every message it took.

`python -m kumodr.lab.sink --listen 127.0.0.1:PORT --index FILE --control FILE`

A recipient whose local part begins with `defer` is deferred, with `refuse` or `bounce` refused. The control file, JSON,
says more, at any time: `{"mode": "rules" | "accept" | "defer", "defer_share": 0.3}`. The share is of messages, chosen
by the hash of recipient and load id, so that one stays deferred until the share changes.

The index gets one line for each message and recipient that was taken, written before it is acknowledged: this is what
proves "once". It survives whatever happens to the mail server.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

_ID = re.compile(rb"\bid ([0-9a-f]{32})\b")
_LOAD = re.compile(rb"^X-Load-Id: *(\S+)", re.MULTILINE | re.IGNORECASE)
_ADDRESS = re.compile(rb"<([^>]*)>")
_HEAD = 8192


class Decisions:
    """What becomes of a recipient, by rule and by the control file."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._seen: tuple[int, int] | None = None
        self._rules: dict[str, Any] = {}

    def before(self, recipient: str) -> bytes | None:
        """Given a recipient, return the refusal to its RCPT command, or None."""
        self._look()
        if self._rules.get("mode") == "accept":
            return None
        if self._rules.get("mode") == "defer" or recipient.startswith("defer"):
            return b"451 4.2.0 later\r\n"
        return b"550 5.1.1 no such user\r\n" if recipient.startswith(("refuse", "bounce")) else None

    def after(self, recipient: str, load_id: str) -> bytes | None:
        """Given a recipient and the message's load id, return the refusal to the message, or None."""
        share = float(self._rules.get("defer_share") or 0)
        if not share or self._rules.get("mode") == "accept":
            return None
        number = int.from_bytes(hashlib.blake2b(f"{recipient}|{load_id}".encode(), digest_size=4).digest(), "big")
        return b"451 4.7.1 later, please\r\n" if number < share * 2**32 else None

    def _look(self) -> None:
        try:
            status = os.stat(self._control)
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._rules = json.loads(self._control.read_text())
                self._seen = seen
        except (OSError, ValueError):
            return


class Transaction(asyncio.Protocol):
    """One connection: SMTP with pipelining."""

    def __init__(self, decisions: Decisions, index: int) -> None:
        self._decisions = decisions
        self._index = index
        self._buffer = bytearray()
        self._recipients: list[str] = []
        self._in_data = False
        self._out: Any = None

    def connection_made(self, transport: Any) -> None:
        """Greet."""
        self._out = transport
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Take whatever is whole."""
        self._buffer += data
        while True:
            if self._in_data:
                end = self._buffer.find(b"\r\n.\r\n")
                if end < 0 and not self._buffer.startswith(b".\r\n"):
                    return
                cut = 0 if end < 0 or self._buffer.startswith(b".\r\n") else end + 2
                body = bytes(self._buffer[:cut])
                del self._buffer[: cut + 3]
                self._in_data = False
                self._out.write(self._taken(body))
            else:
                end = self._buffer.find(b"\n")
                if end < 0:
                    return
                line = bytes(self._buffer[:end]).strip()
                del self._buffer[: end + 1]
                self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb in (b"EHLO", b"HELO"):
            self._out.write(
                b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n"
            )
        elif verb == b"MAIL":
            self._recipients = []
            self._out.write(b"250 2.1.0 ok\r\n")
        elif verb == b"RCPT":
            match = _ADDRESS.search(line)
            recipient = match[1].decode("utf-8", "replace") if match else ""
            refusal = self._decisions.before(recipient)
            if refusal is None:
                self._recipients.append(recipient)
            self._out.write(refusal or b"250 2.1.5 ok\r\n")
        elif verb == b"DATA":
            self._in_data = bool(self._recipients)
            self._out.write(b"354 go on\r\n" if self._in_data else b"503 5.5.1 no recipient\r\n")
        elif verb == b"QUIT":
            self._out.write(b"221 2.0.0 bye\r\n")
            self._out.close()
        else:
            self._out.write(b"250 2.0.0 ok\r\n")

    def _taken(self, stuffed: bytes) -> bytes:
        body = stuffed.replace(b"\r\n..", b"\r\n.")
        body = body[1:] if body.startswith(b"..") else body
        head = body[:_HEAD]
        found, load = _ID.search(head), _LOAD.search(head)
        load_id = load[1].decode("ascii", "replace") if load else ""
        for recipient in self._recipients:
            refusal = self._decisions.after(recipient, load_id)
            if refusal is not None:
                return refusal
        digest = hashlib.sha256(body).hexdigest()
        lines = [
            json.dumps(
                {
                    "time": time.time_ns(),
                    "id": found[1].decode() if found else "",
                    "load_id": load_id,
                    "recipient": recipient,
                    "sha256": digest,
                }
            )
            for recipient in self._recipients
        ]
        os.write(self._index, ("\n".join(lines) + "\n").encode())
        return b"250 2.0.0 taken\r\n"


async def serve(listen: str, index: Path, control: Path) -> None:
    """Serve until SIGTERM."""
    host, _, port = listen.rpartition(":")
    descriptor = os.open(index, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    decisions = Decisions(control)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Transaction(decisions, descriptor), host, int(port))
    await stop.wait()
    server.close()


def main() -> int:
    """Run a sink."""
    parser = argparse.ArgumentParser(prog="python -m kumodr.lab.sink")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    words = parser.parse_args()
    uvloop.run(serve(words.listen, words.index, words.control))
    return 0


if __name__ == "__main__":
    sys.exit(main())
