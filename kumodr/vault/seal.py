"""Sealing: zstd, then age. What is opened must have exactly the size that was promised."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c

from kumodr import errors
from kumodr.vault import age

LARGEST_PLAIN = 8 << 20
"""No object holds more than this many plain bytes, so that memory is bounded on both sides."""

LARGEST_SEALED = LARGEST_PLAIN + (1 << 20)

_SAMPLE = 128 << 10
_WORTH = 1.6
_BLOCK = 128 << 10
_MAGIC = bytes.fromhex("28b52ffd")
_SINGLE_SEGMENT = bytes([0b1110_0000])
"""Frame header descriptor: a content size of 8 bytes, one segment, no checksum, no dictionary."""

_of_thread = threading.local()


@dataclass(frozen=True)
class Sealed:
    """One sealed object: its bytes in pieces, their size, and the CRC-32C over them."""

    pieces: Sequence[bytes]
    size: int
    crc32c: int


def seal(plain: bytes, recipients: Sequence[Any]) -> Sealed:
    """Given plain bytes and the recipients' public keys, compress and encrypt them. Runs beside other threads."""
    pieces = age.encrypt(compressed(plain), recipients)
    checksum = 0
    for piece in pieces:
        checksum = google_crc32c.extend(checksum, piece)
    return Sealed(pieces, sum(map(len, pieces)), checksum)


def compressed(plain: bytes) -> bytes:
    """Given plain bytes, return a zstd frame of them, compressed only where a sample says that it is worth its time.

    Tables of a RocksDB spool are compressed already: zstd would take a quarter off and most of the backup's time.
    """
    compressor = getattr(_of_thread, "compressor", None)
    if compressor is None:
        import zstandard

        compressor = _of_thread.compressor = zstandard.ZstdCompressor(level=1)
    middle = len(plain) // 2
    sample = plain if len(plain) <= _SAMPLE else plain[middle : middle + _SAMPLE]
    small = compressor.compress(sample)
    if len(small) * _WORTH > len(sample):
        return stored_frame(plain)
    return small if sample is plain else compressor.compress(plain)


def stored_frame(plain: bytes) -> bytes:
    """Given plain bytes, return a zstd frame that holds them as they are, in raw blocks (RFC 8878 §3.1.1)."""
    last = max(0, (len(plain) - 1) // _BLOCK)
    pieces = [_MAGIC, _SINGLE_SEGMENT, len(plain).to_bytes(8, "little")]
    view = memoryview(plain)
    for number in range(last + 1):
        block = view[number * _BLOCK : (number + 1) * _BLOCK]
        pieces += [(len(block) << 3 | (number == last)).to_bytes(3, "little"), block]
    return b"".join(pieces)


def unseal(sealed: bytes, secrets: Sequence[Any], size: int | None, name: str) -> bytes:
    """Given a sealed object, the identities and the plain size promised (None: any in bounds), return the plain bytes.

    Raise WrongKey, or ObjectDamaged naming the object.
    """
    pieces = unseal_pieces(sealed, secrets, size, name)
    whole = pieces[0].obj if len(pieces) == 1 else None
    # what was decompressed is bytes already; what lies in raw blocks is in memory that will be used again
    return whole if isinstance(whole, bytes) and len(whole) == len(pieces[0]) else b"".join(pieces)


def unseal_pieces(sealed: bytes, secrets: Sequence[Any], size: int | None, name: str) -> list[memoryview]:
    """As `unseal`, but return the plain bytes in pieces, without copying content that lies in raw blocks.

    They are good until the same thread opens the next object: it uses the same memory.
    """
    try:
        compressed = age.decrypt(sealed, secrets, _room)
    except age.NotForThisKey:
        raise errors.WrongKey(f"object {name} is not sealed to this identity") from None
    except age.Damaged as damage:
        raise errors.ObjectDamaged(f"object {name} is damaged: {damage}") from None
    import zstandard

    decompressor = getattr(_of_thread, "decompressor", None)
    if decompressor is None:
        decompressor = _of_thread.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 24)
    try:
        promised = zstandard.frame_content_size(compressed)
        limit = LARGEST_PLAIN if size is None else size
        if promised < 0 or promised > limit or (size is not None and promised != size):
            raise errors.ObjectDamaged(f"object {name} is damaged: it holds another size than the index says")
        stored = raw_blocks(compressed, promised)
        return stored or [memoryview(decompressor.decompress(compressed, max_output_size=limit))]
    except zstandard.ZstdError:
        raise errors.ObjectDamaged(f"object {name} is damaged: it does not decompress") from None


def _room(size: int) -> memoryview:
    """Return memory of the thread's own: making and clearing it anew takes a tenth of the time of opening an object."""
    if size > LARGEST_SEALED:
        return memoryview(bytearray(size))
    held = getattr(_of_thread, "room", None)
    if held is None or len(held) < size:
        held = _of_thread.room = bytearray(size)
    return memoryview(held)[:size]


def raw_blocks(frame: bytes | memoryview, size: int) -> list[memoryview] | None:
    """Given a zstd frame of that content size, return its blocks where it is what `stored_frame` makes, else None."""
    view = memoryview(frame)
    at = len(_MAGIC) + len(_SINGLE_SEGMENT) + 8
    if bytes(view[:at]) != _MAGIC + _SINGLE_SEGMENT + size.to_bytes(8, "little"):
        return None
    blocks: list[memoryview] = []
    while at + 3 <= len(view):
        head = int.from_bytes(view[at : at + 3], "little")
        block = view[at + 3 : at + 3 + (head >> 3)]
        at += 3 + (head >> 3)
        if head & 0b110 or head >> 3 > _BLOCK:
            return None
        blocks.append(block)
        if head & 1:
            return blocks if at == len(view) and sum(map(len, blocks)) == size else None
    return None


def checksum_of(data: bytes) -> int:
    """Given bytes, return their CRC-32C."""
    return google_crc32c.value(data)
