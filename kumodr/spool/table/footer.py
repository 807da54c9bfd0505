"""A table's footer and index: RocksDB's `table/format.cc` (FooterBuilder) and `table/block_based/index_builder.cc`."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from kumodr.protect.wal.batch import number_at
from kumodr.protect.wal.records import WalUnusable
from kumodr.spool.table.block import TRAILER, BlockDamaged, Handle, end_of_entries, entries, plain
from kumodr.spool.table.checksum import checksum_of, context

Read = Callable[[int, int], bytes]
"""Given an offset and a length, the bytes there, fewer at the end of the file."""

_SIZE = 53
_MAGIC = 0x88E241B785F4CFF7
_EXTENDED_MAGIC = b"\x3e\x00\x7a\x00"
_LARGEST_INDEX = 1 << 30


@dataclass(frozen=True)
class Rules:
    """How a table's blocks are checked: the kind of checksum, and the base of the context (0 before format 6)."""

    kind: int
    base: int


@dataclass(frozen=True)
class Entry:
    """One block as the index names it: where it lies, and the last key that it may hold (None where none is known)."""

    handle: Handle
    until: bytes | None


def read_block(read: Read, handle: Handle, rules: Rules) -> bytes:
    """Given where a block lies, return its content. Raise BlockDamaged."""
    return content_of(read(handle.offset, handle.size + TRAILER), handle, rules)


def content_of(data: bytes, handle: Handle, rules: Rules) -> bytes:
    """Given a block with its trailer, return its content. Raise BlockDamaged."""
    if len(data) != handle.size + TRAILER:
        raise BlockDamaged("the file ends before it does")
    block, compression = data[: handle.size], data[handle.size]
    (stored,) = struct.unpack_from("<I", data, handle.size + 1)
    if (checksum_of(rules.kind, block, compression) + context(rules.base, handle.offset)) & 0xFFFFFFFF != stored:
        raise BlockDamaged("its checksum is wrong")
    return plain(block, compression)


def index_of(read: Read, size: int) -> tuple[Rules, list[Entry]]:
    """Given a table, return how its blocks are checked, and all of them in order of keys. Raise BlockDamaged."""
    try:
        rules, metaindex, index = _footer(read(max(0, size - _SIZE), _SIZE), size)
        named = dict(entries(read_block(read, metaindex, rules)))
        if index is None:
            index = _handle(named[b"rocksdb.index"], 0)[0]
        properties = dict(entries(read_block(read, _handle(named[b"rocksdb.properties"], 0)[0], rules)))
        if struct.unpack("<I", properties[b"rocksdb.block.based.table.index.type"])[0] not in (0, 3):
            raise BlockDamaged("its index is divided or hashed")
        short = b"rocksdb.index.key.is.user.key", b"rocksdb.index.value.is.delta.encoded"
        user_key, delta = (_number(properties.get(name)) for name in short)
        return rules, _entries(read_block(read, index, rules), user_key=bool(user_key), delta=bool(delta))
    except (KeyError, struct.error, ValueError, WalUnusable, IndexError) as error:
        raise BlockDamaged("the index cannot be read") from error


def rules_of(read: Read, size: int) -> Rules:
    """Given a table, return how its blocks are checked. Raise BlockDamaged where its footer cannot be read."""
    try:
        return _footer(read(max(0, size - _SIZE), _SIZE), size)[0]
    except (ValueError, WalUnusable, IndexError) as error:
        raise BlockDamaged("the footer is damaged") from error


def _footer(data: bytes, size: int) -> tuple[Rules, Handle, Handle | None]:
    if len(data) != _SIZE or struct.unpack_from("<Q", data, 45)[0] != _MAGIC:
        raise BlockDamaged("the footer is missing")
    kind, version = data[0], struct.unpack_from("<I", data, 41)[0]
    if version < 6:
        metaindex, at = _handle(data, 1)
        return Rules(kind, 0), metaindex, _handle(data, at)[0]
    magic, stored, base, length = struct.unpack_from("<4sIII", data, 1)
    zeroed = data[:5] + bytes(4) + data[9:]
    added = context(base, size - _SIZE)
    if magic != _EXTENDED_MAGIC or version > 7 or (_checksum_of_all(kind, zeroed) + added) & 0xFFFFFFFF != stored:
        raise BlockDamaged("the footer is damaged")
    return Rules(kind, base), Handle(size - _SIZE - TRAILER - length, length), None


def _checksum_of_all(kind: int, data: bytes) -> int:
    """A footer has no trailer: its last byte stands where a block's type of compression does."""
    return checksum_of(kind, data[:-1], data[-1])


def _entries(content: bytes, *, user_key: bool, delta: bool) -> list[Entry]:
    """Decode an index. With delta, each value but those at a restart is the difference in size from the one before."""
    found: list[Entry] = []
    if not delta:
        for key, value in entries(content):
            found.append(Entry(_handle(value, 0)[0], _user_key(key, user_key=user_key)))
        return found
    at, key, last = 0, b"", Handle(0, 0)
    end = end_of_entries(content)
    while at < end:
        shared, at = number_at(content, at)
        own, at = number_at(content, at)
        key = key[:shared] + content[at : at + own]
        at += own
        if shared == 0:
            last, at = _handle(content, at)
        else:
            raw, at = number_at(content, at)
            last = Handle(last.end, last.size + ((raw >> 1) ^ -(raw & 1)))
        found.append(Entry(last, _user_key(key, user_key=user_key)))
    return found


def _user_key(key: bytes, *, user_key: bool) -> bytes:
    return key if user_key else key[:-8]


def _handle(data: bytes, at: int) -> tuple[Handle, int]:
    offset, at = number_at(data, at)
    size, at = number_at(data, at)
    if size > _LARGEST_INDEX:
        raise BlockDamaged("a block is too large")
    return Handle(offset, size), at


def _number(value: bytes | None) -> int:
    return number_at(value, 0)[0] if value else 0
