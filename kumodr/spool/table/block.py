"""A block of a table: where it lies, its content without compression, the entries in it.

RocksDB's `table/format.h` (trailer: type of compression, checksum), `util/compression.h` (all but Snappy put the plain
size in front) and `table/block_based/block_builder.cc` (entries share the beginning of keys; restarts at the end).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kumodr.protect.wal.batch import number_at
from kumodr.protect.wal.records import WalUnusable

TRAILER = 5
LARGEST = 256 << 20
_NONE, _SNAPPY, _LZ4, _LZ4HC, _ZSTD = 0, 1, 4, 5, 7


class BlockDamaged(Exception):
    """The block cannot be read; the text is the reason."""


@dataclass(frozen=True)
class Handle:
    """Where a block lies: its offset, and its size without the trailer."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset behind the trailer."""
        return self.offset + self.size + TRAILER


def plain(block: bytes, compression: int) -> bytes:
    """Given a block as it lies in the file, return its content. Raise BlockDamaged, and for what KumoMTA never uses."""
    import cramjam
    import zstandard

    try:
        if compression == _NONE:
            return block
        if compression == _SNAPPY:
            _bounded(number_at(block, 0)[0])
            return bytes(cramjam.snappy.decompress_raw(block))
        size, at = number_at(block, 0)
        _bounded(size)
        if compression in (_LZ4, _LZ4HC):
            return bytes(cramjam.lz4.decompress_block(block[at:], output_len=size))
        if compression == _ZSTD:
            return zstandard.ZstdDecompressor().decompress(block[at:], max_output_size=size)
    except (cramjam.DecompressionError, zstandard.ZstdError, WalUnusable, IndexError) as error:
        raise BlockDamaged("its compression is damaged") from error
    raise BlockDamaged(f"its compression (type {compression}) is unknown")


def entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Given a block's content, yield its keys and values. Raise BlockDamaged."""
    end = end_of_entries(content)
    at, key = 0, b""
    try:
        while at < end:
            shared, at = number_at(content, at)
            own, at = number_at(content, at)
            size, at = number_at(content, at)
            value = at + own
            if shared > len(key) or value + size > end:
                raise BlockDamaged("an entry does not end where it should")
            key = key[:shared] + content[at:value]
            at = value + size
            yield key, content[value:at]
    except (WalUnusable, IndexError) as error:
        raise BlockDamaged("an entry is cut off") from error


def end_of_entries(content: bytes) -> int:
    """Given a block's content, return where its restarts begin. Raise BlockDamaged."""
    if len(content) < 8:
        raise BlockDamaged("it is too short")
    (footer,) = struct.unpack_from("<I", content, len(content) - 4)
    restarts = footer & 0x7FFFFFFF
    end = len(content) - 4 - 4 * restarts
    if footer >> 31 or restarts == 0 or end < 0:
        raise BlockDamaged("its restarts are damaged, or it is indexed by hashes")
    return end


def _bounded(size: int) -> None:
    if size > LARGEST:
        raise BlockDamaged(f"it is larger than {LARGEST >> 20} MiB")
