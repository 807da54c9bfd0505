"""Ports on loopback: which nobody uses, and whether somebody answers."""

import socket
import urllib.error
import urllib.request


def free_ports(count: int) -> list[int]:
    """Return that many free loopback ports, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def listens(port: int) -> bool:
    """Given a port, say whether somebody takes connections there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def answers(url: str) -> bool:
    """Given an address on loopback, say whether it answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 — an address on loopback, made here
            return answer.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False
