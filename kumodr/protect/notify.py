"""Telling systemd how a service stands: its sd_notify protocol, datagrams to the socket that NOTIFY_SOCKET names."""

import contextlib
import socket
from collections.abc import Mapping


class ServiceManager:
    """Given this process's variables, talks to the systemd that started it; without one, to nobody."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """Say that the service does its work from now on."""
        self._send("READY=1")

    def round_done(self, status: str) -> None:
        """Say that a round of the loop ended, so that the watchdog is content, and how it stands."""
        self._send(f"WATCHDOG=1\nSTATUS={status.replace(chr(10), ' ')}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        """Send it, or not: a systemd that does not listen is no reason to end protection."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), self._address)
