"""Follow a spool of two RocksDB databases by their write-ahead logs.

Within a round `meta` is read to where it stands, then `data` to where it stands then. A body is written before, or
within milliseconds of, its metadata, and both before the message is acknowledged; it is removed before its metadata. So
after the round every acknowledged message that is not finished has its metadata and its body in the stream.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kumodr.protect.source import Changed, Piece, SourceLost
from kumodr.protect.wal.follow import Cursor, Follower, start_of
from kumodr.protect.wal.records import WalUnusable


class RocksSource:
    """Both halves, followed from a position. Close it after use."""

    def __init__(self, meta: Path, data: Path, position: Mapping[str, Any]) -> None:
        self._halves = {
            "meta": Follower(meta, Cursor.of(position["meta"])),
            "data": Follower(data, Cursor.of(position["data"])),
        }

    def pieces(self, limit: int) -> Iterator[Piece]:
        """See Source. What is there when a half is begun bounds the round, so that it ends under any load."""
        changed: dict[str, Changed] = {"meta": {}, "data": {}}
        messages = size = 0
        for name, half in self._halves.items():
            there = half.behind()
            while True:
                try:
                    advance = half.advance(changed[name], limit)
                except WalUnusable as reason:
                    raise SourceLost(f"{name}: {reason}") from None
                there -= advance.bytes
                if name == "data":
                    messages, size = messages + advance.puts, size + advance.put_bytes
                if not advance.more or there <= 0:
                    break
                yield Piece(changed["meta"], changed["data"], True, messages, size)
                changed, messages, size = {"meta": {}, "data": {}}, 0, 0
        yield Piece(changed["meta"], changed["data"], False, messages, size)

    def is_due(self) -> bool:
        """See Source: reading a log costs what was written to it."""
        return True

    def position(self) -> Mapping[str, Any]:
        """See Source."""
        return {name: half.cursor.document() for name, half in self._halves.items()}

    def hold(self) -> None:
        """See Source. A log lives as long as it takes to fill a memtable and to flush it, which may be short."""
        for half in self._halves.values():
            half.hold()

    def expect(self, ids: Iterable[bytes]) -> None:
        """See Source: a log has every deletion."""

    def behind(self) -> int:
        """See Source."""
        return sum(half.behind() for half in self._halves.values())

    def close(self) -> None:
        """See Source."""
        for half in self._halves.values():
            half.close()


def present_of(meta: Path, data: Path) -> Mapping[str, Any]:
    """Given both halves' directories, return a position at, or a little before, the present. Raise SourceLost."""
    try:
        return {"meta": start_of(meta).document(), "data": start_of(data).document()}
    except WalUnusable as reason:
        raise SourceLost(str(reason)) from None
