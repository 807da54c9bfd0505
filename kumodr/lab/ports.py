"""Loopback ports that nobody uses."""

import socket


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
