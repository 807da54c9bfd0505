"""Message ids: 16 bytes in the spool, 32 hexadecimal digits everywhere else, with the time of creation inside."""

from datetime import UTC, datetime, timedelta

from kumodr import errors

LENGTH = 16
FAR_FUTURE = datetime.max.replace(tzinfo=UTC)
"""Stands for times that KumoMTA reads as later than the year 9999, which is what it makes of times before 1970."""

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS_BEFORE_1970 = 0x01B21DD213814000
_HEXADECIMAL = frozenset("0123456789abcdef")


def text_of_key(key: bytes) -> str:
    """Given the bytes of an id, return its hexadecimal text: 32 digits for every id that KumoMTA makes."""
    return key.hex()


def key_of_text(text: str) -> bytes:
    """Given an id as people write it (upper case and dashes are fine), return its 16 bytes. Raise UsageWrong."""
    plain = text.strip().replace("-", "").lower()
    if len(plain) != 2 * LENGTH or not _HEXADECIMAL.issuperset(plain):
        raise errors.UsageWrong(f"{text[:80]!r} is no message id", remedy="an id has 32 hexadecimal digits")
    return bytes.fromhex(plain)


def created(key: bytes) -> datetime | None:
    """Given the bytes of an id, return when it was made, or None where it is not 16 bytes of a time-based UUID.

    UUID versions 1, 6 and 7 carry a time (RFC 9562). As in KumoMTA only the version is looked at, not the variant;
    and a time before 1970 counts as one of the far future, because KumoMTA's subtraction wraps around.
    """
    if len(key) != LENGTH:
        return None
    number = int.from_bytes(key, "big")
    version = key[6] >> 4
    if version == 7:
        milliseconds = number >> 80
        return _after(milliseconds // 1000, milliseconds % 1000 * 1000)
    if version == 1:
        ticks = (number >> 96) | (number >> 80 & 0xFFFF) << 32 | (number >> 64 & 0x0FFF) << 48
    elif version == 6:
        ticks = (number >> 80) << 12 | (number >> 64 & 0x0FFF)
    else:
        return None
    since = ticks - TICKS_BEFORE_1970
    return _after(since // 10_000_000, since % 10_000_000 // 10) if since >= 0 else FAR_FUTURE


def _after(seconds: int, microseconds: int) -> datetime:
    try:
        return _UNIX_EPOCH + timedelta(seconds=seconds, microseconds=microseconds)
    except OverflowError:
        return FAR_FUTURE
