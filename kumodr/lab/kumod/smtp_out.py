"""Delivery by SMTP: one connection at a time, used again, commands pipelined."""

import asyncio
import contextlib
import re
from dataclasses import dataclass

from kumodr.lab.kumod.config import host_and_port
from kumodr.lab.kumod.records import Peer, Response

_TIMEOUT = 10.0
_REPLY = re.compile(rb"(\d{3})([ -])(?:(\d)\.(\d+)\.(\d+) )?([^\r\n]*)\r?\n")


@dataclass(frozen=True)
class Attempt:
    """What became of each recipient of one attempt: accepted, deferred, refused, each with what was said."""

    peer: Peer
    accepted: tuple[list[str], Response] | None
    deferred: tuple[list[str], Response] | None
    refused: tuple[list[str], Response] | None


class Unreachable(Exception):
    """The peer could not be reached, or the connection broke: nothing is known of the message."""


class Connection:
    """A connection to the address that all mail goes to."""

    def __init__(self, address: str, hostname: str, session: str) -> None:
        self._address = address
        self._hostname = hostname
        self._session = session
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._peer = Peer("sink", address, f"unspecified->mx_list:{address}@smtp_client", session, "127.0.0.1:0")

    @property
    def open(self) -> bool:
        """Whether it is connected."""
        return self._writer is not None

    async def deliver(self, sender: str, recipients: list[str], body: bytes) -> Attempt:
        """Given a message, try once. Raise Unreachable."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                if self._writer is None:
                    await self._connect()
                return await self._transaction(sender, recipients, body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            await self.close()
            raise Unreachable(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = self._reader = None

    async def _connect(self) -> None:
        host, port = host_and_port(self._address)
        self._reader, self._writer = await asyncio.open_connection(host, port)
        own = self._writer.get_extra_info("sockname")
        self._peer = Peer(
            "sink",
            self._address,
            f"unspecified->mx_list:{self._address}@smtp_client",
            self._session,
            f"{own[0]}:{own[1]}",
        )
        await self._reply("")
        self._writer.write(f"EHLO {self._hostname}\r\n".encode())
        await self._reply("EHLO")

    async def _transaction(self, sender: str, recipients: list[str], body: bytes) -> Attempt:
        assert self._writer is not None  # noqa: S101 — connected above
        commands = [f"MAIL FROM:<{sender}>\r\n", *(f"RCPT TO:<{each}>\r\n" for each in recipients), "DATA\r\n"]
        self._writer.write("".join(commands).encode())
        begun = await self._reply(commands[0])
        answers = [(each, await self._reply(command)) for each, command in zip(recipients, commands[1:], strict=False)]
        data = await self._reply("DATA\r\n")
        if begun.code >= 400:
            answers = [(each, begun) for each in recipients]
        taken = [each for each, answer in answers if answer.code < 300]
        done = data
        if data.code == 354:
            self._writer.write(_dotted(body) if taken else b".\r\n")
            done = await self._reply(".\r\n")
        else:
            self._writer.write(b"RSET\r\n")
            await self._reply("RSET")
        answers = [(each, done if answer.code < 300 else answer) for each, answer in answers]
        return Attempt(self._peer, _those(answers, 200), _those(answers, 400), _those(answers, 500))

    async def _reply(self, command: str) -> Response:
        assert self._reader is not None  # noqa: S101 — connected above
        texts: list[str] = []
        while True:
            line = await self._reader.readline()
            match = _REPLY.fullmatch(line)
            if match is None:
                raise ValueError("the peer closed the connection" if not line else "the peer does not speak SMTP")
            texts.append(match[6].decode("utf-8", "replace"))
            if match[2] == b" ":
                enhanced = (int(match[3]), int(match[4]), int(match[5])) if match[3] else None
                return Response(int(match[1]), "\n".join(texts), enhanced, command or None)


def _those(answers: list[tuple[str, Response]], kind: int) -> tuple[list[str], Response] | None:
    """Return the recipients that got an answer of a kind (200, 400, 500), with the first of these answers."""
    found = [(each, answer) for each, answer in answers if kind <= answer.code < (400 if kind == 200 else kind + 100)]
    return ([each for each, _ in found], found[0][1]) if found else None


def _dotted(body: bytes) -> bytes:
    stuffed = body.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n")
