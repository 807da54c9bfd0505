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

_of_thread = threading.local()


@dataclass(frozen=True)
class Sealed:
    """One sealed object: its bytes in pieces, their size, and the CRC-32C over them."""

    pieces: Sequence[bytes]
    size: int
    crc32c: int


def seal(plain: bytes, recipients: Sequence[Any]) -> Sealed:
    """Given plain bytes and the recipients' public keys, compress and encrypt them. Runs beside other threads."""
    compressor = getattr(_of_thread, "compressor", None)
    if compressor is None:
        import zstandard

        compressor = _of_thread.compressor = zstandard.ZstdCompressor(level=1)
    pieces = age.encrypt(compressor.compress(plain), recipients)
    checksum = 0
    for piece in pieces:
        checksum = google_crc32c.extend(checksum, piece)
    return Sealed(pieces, sum(map(len, pieces)), checksum)


def unseal(sealed: bytes, secrets: Sequence[Any], size: int | None, name: str) -> bytes:
    """Given a sealed object, the identities and the plain size promised (None: any in bounds), return the plain bytes.

    Raise WrongKey, or ObjectDamaged naming the object.
    """
    try:
        compressed = age.decrypt(sealed, secrets)
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
        return decompressor.decompress(compressed, max_output_size=limit)
    except zstandard.ZstdError:
        raise errors.ObjectDamaged(f"object {name} is damaged: it does not decompress") from None


def checksum_of(data: bytes) -> int:
    """Given bytes, return their CRC-32C."""
    return google_crc32c.value(data)
