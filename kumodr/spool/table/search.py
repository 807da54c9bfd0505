"""Find a table's blocks of data without its index: that stands at the end, and the end may be gone.

A block of data of KumoMTA's begins with an entry whose key is whole: nothing shared, 24 bytes (an id, and RocksDB's 8
bytes of sequence number and type). Snappy, which KumoMTA uses, and no compression both tell where a block ends, and the
trailer's checksum confirms it. The base of the checksums (format 6) is in the footer, which may be gone too: then it is
computed from the first block that is whole otherwise, and each next one confirms it.
"""

import struct
from collections.abc import Iterator

from kumodr.protect.wal.batch import number_at
from kumodr.protect.wal.records import WalUnusable
from kumodr.spool.table.block import LARGEST, TRAILER, BlockDamaged, Handle, plain
from kumodr.spool.table.checksum import XXH3, base_of, checksum_of
from kumodr.spool.table.footer import Read, Rules, content_of

_BEGINNING = b"\x00\x18"
_BEFORE = 10
"""In front of a Snappy block's first entry: the plain size, and the literal's tag."""

_PIECE = 1 << 20
_RESTART_EVERY = 16
_NONE, _SNAPPY = 0, 1


def search(read: Read, size: int, rules: Rules | None) -> Iterator[tuple[Handle, bytes]]:
    """Given a table, and how its blocks are checked where that is known, yield the blocks of data that are whole.

    Each with its content, in the order of the file.
    """
    at = 0
    while (found := _next(read, size, at, rules)) is not None:
        handle, content, rules = found
        yield handle, content
        at = handle.end


def _next(read: Read, size: int, at: int, rules: Rules | None) -> tuple[Handle, bytes, Rules] | None:
    for beginning in _beginnings(read, size, at):
        for offset in range(beginning, max(at, beginning - _BEFORE) - 1, -1):
            found = _block_at(read, size, offset, beginning, rules)
            if found is not None:
                return found
    return None


def _beginnings(read: Read, size: int, at: int) -> Iterator[int]:
    """Yield each offset from `at` on where the first entry of a block of data may begin."""
    while at < size:
        piece = read(at, _PIECE)
        found = piece.find(_BEGINNING)
        while found >= 0:
            yield at + found
            found = piece.find(_BEGINNING, found + 1)
        at += max(1, len(piece) - len(_BEGINNING) + 1)


def _block_at(
    read: Read, size: int, offset: int, beginning: int, rules: Rules | None
) -> tuple[Handle, bytes, Rules] | None:
    ends = _ends_of_plain(read, offset, size) if offset == beginning else _end_of_snappy(read, offset, beginning, size)
    for end, compression in ends:
        handle = Handle(offset, end - offset)
        data = read(offset, handle.size + TRAILER)
        if len(data) != handle.size + TRAILER or data[handle.size] != compression:
            continue
        try:
            if rules is not None:
                return handle, content_of(data, handle, rules), rules
            guessed = _guessed(data, handle)
            content = plain(data[: handle.size], compression)
            if offset or _confirmed(read, size, handle, guessed):
                return handle, content, guessed
        except BlockDamaged:
            continue
    return None


def _guessed(data: bytes, handle: Handle) -> Rules:
    """Return the rules under which the block's checksum is right: XXH3, which RocksDB 7 and later write."""
    (stored,) = struct.unpack_from("<I", data, handle.size + 1)
    added = (stored - checksum_of(XXH3, data[: handle.size], data[handle.size])) & 0xFFFFFFFF
    return Rules(XXH3, base_of(added, handle.offset))


def _confirmed(read: Read, size: int, handle: Handle, rules: Rules) -> bool:
    """Say whether rules that were computed from one block hold for another; without a base they need no other."""
    return rules.base == 0 or _next(read, size, handle.end, rules) is not None


def _end_of_snappy(read: Read, offset: int, beginning: int, size: int) -> Iterator[tuple[int, int]]:
    """Given where a Snappy block may begin, yield where it ends, if it is one (its format: google/snappy)."""
    head = read(offset, _BEFORE + 2)
    try:
        length, at = number_at(head, 0)
        tag = head[at]
    except (WalUnusable, IndexError):
        return
    if not 28 < length <= LARGEST or tag & 3:
        return
    extra = max(0, (tag >> 2) - 59)
    if offset + at + 1 + extra != beginning:
        return
    data = read(offset, min(size - offset, _most_of_snappy(length)))
    end = _walked(data, at, length)
    if end is not None:
        yield offset + end, _SNAPPY


def _walked(data: bytes, at: int, length: int) -> int | None:
    """Return where the elements end that make `length` bytes; None where they do not."""
    made = 0
    try:
        while made < length:
            tag = data[at]
            kind = tag & 3
            if kind == 0:
                size = tag >> 2
                at += 1
                if size >= 60:
                    width = size - 59
                    size = int.from_bytes(data[at : at + width], "little")
                    at += width
                size += 1
                at += size
            elif kind == 1:
                size = (tag >> 2 & 7) + 4
                at += 2
            else:
                size = (tag >> 2) + 1
                at += 3 if kind == 2 else 5
            made += size
    except IndexError:
        return None
    return at if made == length and at <= len(data) else None


def _most_of_snappy(length: int) -> int:
    return 32 + length + length // 6


def _ends_of_plain(read: Read, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Given where a block without compression may begin, yield every end that its entries allow.

    Behind the entries stand the restarts, one for every 16 entries; the first of them is zero.
    """
    data = read(offset, min(size - offset, _PIECE))
    at = count = 0
    try:
        while True:
            if count:
                restarts = (count - 1) // _RESTART_EVERY + 1
                end = at + 4 * restarts + 4
                if data[at : at + 4] == bytes(4) and data[end - 4 : end] == struct.pack("<I", restarts):
                    yield offset + end, _NONE
            shared, at = number_at(data, at)
            own, at = number_at(data, at)
            value, at = number_at(data, at)
            if shared + own != 24 or value > LARGEST:
                return
            at += own + value
            if at > len(data) and offset + len(data) < size:
                data = read(offset, min(size - offset, 2 * at))
            count += 1
    except (WalUnusable, IndexError):
        return
