"""Whether a segment's zstd frames are whole, told from their headers alone: nothing is decompressed.

DuckDB leaves out the last blocks of a frame that was cut, without a word; so it is only given whole ones.
"""

import os
from pathlib import Path

from kumodr import errors
from kumodr.spool.openfile import open_read_only

_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_LONGEST_HEADER = 18
_RLE, _RESERVED = 1, 3


def is_whole(path: Path) -> bool:
    """Given a segment, say whether it is nothing but frames that have their end. Raise LogUnreadable.

    The form is that of RFC 8878: a header, blocks that each say how long they are and whether they are the last.
    """
    try:
        descriptor = open_read_only(str(path))
    except OSError as error:
        raise errors.LogUnreadable(f"the log {path} cannot be opened: {error.strerror}") from error
    try:
        size, offset = os.fstat(descriptor).st_size, 0
        while offset < size:
            end = _end_of_frame(descriptor, offset)
            if end is None:
                return False
            offset = end
        return offset == size
    except OSError as error:
        raise errors.LogUnreadable(f"the log {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _end_of_frame(descriptor: int, offset: int) -> int | None:
    """Return the offset behind the frame that begins there, None where there is no whole header or block."""
    import zstandard

    header = os.pread(descriptor, _LONGEST_HEADER, offset)
    if len(header) >= 8 and int.from_bytes(header[:4], "little") in _SKIPPABLE:
        return offset + 8 + int.from_bytes(header[4:8], "little")
    try:
        offset += zstandard.frame_header_size(header)
        checksum = 4 if zstandard.get_frame_parameters(header).has_checksum else 0
    except zstandard.ZstdError:
        return None
    while len(block := os.pread(descriptor, 3, offset)) == 3:
        value = int.from_bytes(block, "little")
        kind = value >> 1 & 3
        if kind == _RESERVED:
            return None
        offset += 3 + (1 if kind == _RLE else value >> 3)
        if value & 1:
            return offset + checksum
    return None
