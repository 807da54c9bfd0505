"""Logs and batches made here, byte by byte, by the format that RocksDB documents; independent of the reader."""

import struct
from collections.abc import Sequence
from pathlib import Path

import google_crc32c

BLOCK = 32768
Entry = tuple[bytes, bytes | None]


def fragment(kind: int, payload: bytes) -> bytes:
    crc = google_crc32c.value(bytes([kind]) + payload)
    stored = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<IHB", stored, len(payload), kind) + payload


def log_of(records: Sequence[bytes], data: bytes = b"") -> bytes:
    """Given records, return the log that holds them, behind what it already holds."""
    log = bytearray(data)
    for record in records:
        left, first = record, True
        while True:
            room = BLOCK - len(log) % BLOCK
            if room < 7:
                log += bytes(room)
                room = BLOCK
            part, left = left[: room - 7], left[room - 7 :]
            kind = (1 if not left else 2) if first else (4 if not left else 3)
            log += fragment(kind, part)
            first = False
            if not left:
                break
    return bytes(log)


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(content: bytes) -> bytes:
    return varint(len(content)) + content


def batch_of(sequence: int, entries: Sequence[Entry], *, delete: int = 0) -> bytes:
    """Given puts and deletes (`delete` is the tag of these), return the batch of them."""
    return raw_batch(
        sequence,
        len(entries),
        *(bytes([delete]) + text(key) if value is None else b"\1" + text(key) + text(value) for key, value in entries),
    )


def raw_batch(sequence: int, count: int, *parts: bytes) -> bytes:
    return struct.pack("<QI", sequence, count) + b"".join(parts)


def database_of(folder: Path, *, last_sequence: int = 0) -> Path:
    """Make a folder that looks like a database without logs."""
    folder.mkdir()
    (folder / "IDENTITY").write_text("11111111-2222-3333-4444-555555555555")
    (folder / "CURRENT").write_text("MANIFEST-000004\n")
    (folder / "MANIFEST-000004").write_bytes(log_of([varint(2) + varint(5) + varint(4) + varint(last_sequence)]))
    return folder
