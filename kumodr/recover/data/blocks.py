"""Every checksum of one block of Prometheus, read by itself: promtool opens blocks, and reads the samples of none.

Format: github.com/prometheus/prometheus, tsdb/docs/format/{chunks,index}.md. Checksums are CRC-32C, numbers big-endian.
"""

import json
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c

_CHUNKS, _INDEX = 0x85BD40DD, 0xBAAAD700
_CONTENTS = struct.Struct(">6QI")
_LARGEST_META = 1 << 20

Data = bytes | mmap.mmap


def why_not_sound(block: Path) -> str | None:
    """Given a block's folder, return what is wrong with it, or None."""
    try:
        with open(block / "meta.json", "rb") as file:
            meta = json.loads(file.read(_LARGEST_META))
        if not isinstance(meta, dict) or meta.get("ulid") != block.name:
            return "its meta.json is of another block"
        wrong = _read(block / "index", _of_index)
        if wrong is not None:
            return f"index: {wrong}"
        for segment in sorted((block / "chunks").iterdir()):
            wrong = _read(segment, _of_chunks)
            if wrong is not None:
                return f"chunks/{segment.name}: {wrong}"
    except (ValueError, RecursionError):
        return "its meta.json cannot be understood"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def _read(path: Path, check: Callable[[Data], str | None]) -> str | None:
    """Check a file without having it in memory: a segment has up to 512 MiB."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return "it is empty"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return check(data)


def _of_chunks(data: Data) -> str | None:
    """A segment: a header of 8 bytes, then for each chunk its length, a byte of encoding, the data, the checksum."""
    if len(data) < 8 or int.from_bytes(data[:4], "big") != _CHUNKS:
        return "its head is damaged"
    at = 8
    while at < len(data):
        length, begin = _number(data, at)
        end = begin + 1 + length
        if length == 0 and not any(data[at:]):
            return None
        if not _holds(data, begin, end):
            return f"damage at {at:,}"
        at = end + 4
    return None


def _of_index(data: Data) -> str | None:
    """The table of contents at the end, then symbols, series, lists and their table: what Prometheus reads of it. Label
    indices and their table are kept for versions that are gone.
    """
    if len(data) < 5 + _CONTENTS.size or int.from_bytes(data[:4], "big") != _INDEX:
        return "its head or end is missing"
    begin = len(data) - _CONTENTS.size
    symbols, series, indices, labels, postings, table, checksum = _CONTENTS.unpack_from(data, begin)
    if google_crc32c.value(data[begin:-4]) != checksum:
        return "its table of contents is damaged"
    ends = sorted(each for each in (symbols, series, indices, labels, postings, table, begin) if each)
    for name, start, width, sized in (
        ("symbols", symbols, None, _four), ("series", series, 16, _number),
        ("lists", postings, 4, _four), ("table", table, None, _four),
    ):  # fmt: skip
        if not start:
            continue
        limit = next((each for each in ends if each > start), begin)
        wrong = _of_section(data, start, limit, width, sized)
        if wrong is not None:
            return f"{name}: damage at {wrong:,}"
    return None


def _of_section(
    data: Data, at: int, limit: int, width: int | None, sized: Callable[[Data, int], tuple[int, int]]
) -> int | None:
    """Check one entry, or with a width all entries, each aligned to it; return where damage is, or None."""
    while at < limit:
        length, begin = sized(data, at)
        if width is not None and length == 0 and not any(data[at:limit]):
            return None
        if begin + length + 4 > limit or not _holds(data, begin, begin + length):
            return at
        if width is None:
            return None
        at = begin + length + 4
        at += -at % width
    return None


def _holds(data: Data, begin: int, end: int) -> bool:
    return end + 4 <= len(data) and google_crc32c.value(data[begin:end]) == int.from_bytes(data[end : end + 4], "big")


def _four(data: Data, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 4], "big"), at + 4


def _number(data: Data, at: int) -> tuple[int, int]:
    """Return an unsigned number of variable length, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at
