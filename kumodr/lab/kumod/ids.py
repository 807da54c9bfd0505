"""Message ids: UUID version 1, as KumoMTA makes them (crates/uuid-helper)."""

import random
import uuid

TICKS_BEFORE_1970 = 0x01B21DD213814000


class IdMaker:
    """Ids in the order of time: 100 ns of a clock in nanoseconds, a random clock sequence, a MAC address."""

    def __init__(self, mac: bytes, chance: random.Random) -> None:
        self.mac = mac
        self._sequence = chance.getrandbits(14)
        self._last = 0

    def make(self, now_ns: int) -> bytes:
        """Given the time in ns since 1970, return 16 bytes; never the same twice, even if the clock stands still."""
        ticks = max(now_ns // 100 + TICKS_BEFORE_1970, self._last + 1)
        self._last = ticks
        return encode(ticks, self._sequence, self.mac)


def encode(ticks: int, sequence: int, mac: bytes) -> bytes:
    """Given 100 ns ticks since 1582, clock sequence and MAC, return the id's bytes."""
    low, middle, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF | 0x1000
    head = low.to_bytes(4, "big") + middle.to_bytes(2, "big") + high.to_bytes(2, "big")
    return head + (sequence & 0x3FFF | 0x8000).to_bytes(2, "big") + mac


def created_ns(key: bytes) -> int | None:
    """Given an id, return its time in ns since 1970, or None where it is not a time-based UUID."""
    version = key[6] >> 4
    if version == 7:
        return int.from_bytes(key[:6], "big") * 1_000_000
    if version == 6:
        ticks = int.from_bytes(key[:6], "big") << 12 | int.from_bytes(key[6:8], "big") & 0x0FFF
    elif version == 1:
        low, middle = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:6], "big")
        ticks = low | middle << 32 | (int.from_bytes(key[6:8], "big") & 0x0FFF) << 48
    else:
        return None
    return (ticks - TICKS_BEFORE_1970) * 100


def of_transfer(key: bytes, mac: bytes) -> bytes:
    """Given the id of a transferred message and this node's MAC, return the id that it gets here (facts §14).

    Where the id carries this MAC already, KumoMTA's arithmetic ends in a time of the far future.
    """
    if key[10:] == mac:
        return bytes([key[0] ^ 0xFF, *key[1:6], 0x1F, 0xFF]) + key[8:10] + mac
    return key[:10] + mac


def mac_of_host(chance: random.Random | None) -> bytes:
    """Return this host's MAC address, or a seeded one."""
    return bytes([0x66, *chance.randbytes(5)]) if chance else uuid.getnode().to_bytes(6, "big")
