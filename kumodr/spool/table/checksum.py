"""The checksum of a table's block: RocksDB's `table/format.cc`, ComputeBuiltinChecksumWithLastByte."""

import google_crc32c
import xxhash

from kumodr.protect.wal.records import masked

NONE, CRC32C, XXHASH, XXHASH64, XXH3 = range(5)
_LAST_BYTE_PRIME = 0x6B9083D9
_LOW = 0xFFFFFFFF


def checksum_of(kind: int, block: bytes, compression: int) -> int:
    """Given the kind, a block as it lies in the file and its type of compression, return the plain checksum.

    Raise ValueError for a kind that RocksDB does not have.
    """
    if kind == XXH3:
        return (xxhash.xxh3_64_intdigest(block) & _LOW) ^ (compression * _LAST_BYTE_PRIME & _LOW)
    if kind == CRC32C:
        return masked(google_crc32c.extend(google_crc32c.value(block), bytes((compression,))))
    if kind == XXHASH64:
        return xxhash.xxh64_intdigest(block + bytes((compression,))) & _LOW
    if kind == XXHASH:
        return xxhash.xxh32_intdigest(block + bytes((compression,)))
    if kind == NONE:
        return 0
    raise ValueError(f"checksums of kind {kind} are unknown")


def context(base: int, offset: int) -> int:
    """Given a table's base (0 before format 6) and a block's offset, return what is added to the block's checksum."""
    return base ^ ((offset & _LOW) + (offset >> 32) & _LOW) if base else 0


def base_of(added: int, offset: int) -> int:
    """Given what was added to the checksum of the block at an offset, return the table's base: 0 where nothing was."""
    return added ^ ((offset & _LOW) + (offset >> 32) & _LOW) if added else 0
