"""Every record of a damaged write-ahead log that can be read, and the gaps between them.

The format is that of `protect/wal/records.py`. Reading goes on behind damage, with the next fragment
whose checksum is right; each block begins with one. A record of several fragments is whole or left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c

from kumodr.protect.wal.records import BLOCK, FIRST, FULL, HEADER, LARGEST, LAST, MIDDLE, TIMESTAMP_SIZE, masked
from kumodr.spool.table.footer import Read

_TYPES = frozenset((FULL, FIRST, MIDDLE, LAST, TIMESTAMP_SIZE))


@dataclass(frozen=True)
class LogGap:
    """Where a log cannot be read."""

    offset: int


def records_of(read: Read, size: int) -> Iterator[bytes | LogGap]:
    """Given a log, yield whole records and gaps in order. An unfinished end, as after a kill, is no gap."""
    parts: list[bytes] = []
    for block in range(0, size, BLOCK):
        data = read(block, min(BLOCK, size - block))
        at = 0
        while at + HEADER.size <= len(data):
            found = _fragment(data, at)
            if found is None:
                following = _behind(data, at)
                if following is None and block + len(data) >= size:
                    return
                parts.clear()
                yield LogGap(block + at)
                at = len(data) if following is None else following
                continue
            kind, payload = found
            at += HEADER.size + len(payload)
            if kind == FULL:
                parts.clear()
                yield payload
            elif kind == FIRST:
                parts[:] = [payload]
            elif kind in (MIDDLE, LAST) and parts:
                parts.append(payload)
                if kind == LAST:
                    yield b"".join(parts)
                    parts.clear()
                elif sum(map(len, parts)) > LARGEST:
                    parts.clear()
                    yield LogGap(block + at)


def _fragment(data: bytes, at: int) -> tuple[int, bytes] | None:
    """Return type and payload of the fragment at an offset; None where it is not whole, or of a type KumoMTA lacks."""
    checksum, length, kind = HEADER.unpack_from(data, at)
    payload = data[at + HEADER.size : at + HEADER.size + length]
    whole = len(payload) == length and kind in _TYPES
    if not whole or masked(google_crc32c.extend(google_crc32c.value(bytes((kind,))), payload)) != checksum:
        return None
    return kind, payload


def _behind(data: bytes, at: int) -> int | None:
    """Where in the block the next whole fragment begins: its type says where to look, its checksum decides."""
    for behind in range(at + 1, len(data) - HEADER.size):
        if data[behind + 6] in _TYPES and _fragment(data, behind) is not None:
            return behind
    return None
