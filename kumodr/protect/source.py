"""What the loop reads changes from: one protocol for both kinds of spool."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Changed = dict[bytes, bytes | None]


class SourceLost(Exception):
    """Following cannot go on from here; a new base is due. The text is the reason that is recorded."""


@dataclass(frozen=True)
class Piece:
    """Changes of a moment, or a part of them; `partial` where the rest of the same moment comes in the next piece.

    `messages` and `message_bytes` are bodies put, also those deleted again within the piece: what was accepted.
    """

    meta: Changed = field(default_factory=dict[bytes, bytes | None])
    data: Changed = field(default_factory=dict[bytes, bytes | None])
    partial: bool = False
    messages: int = 0
    message_bytes: int = 0

    def counts(self) -> dict[str, int]:
        """Return what the clear part of a segment says: counts, never names."""
        return {
            "messages": self.messages,
            "bytes": self.message_bytes,
            "meta": len(self.meta),
            "data": len(self.data),
        }


class Source(Protocol):
    """A live spool, followed read-only."""

    def pieces(self, limit: int) -> Iterator[Piece]:
        """Yield what changed since the last call, to a moment not before this call, in pieces of about `limit` bytes.

        The last piece is not partial. Everything that was acknowledged before the call, and is not finished, is in
        the pieces up to now: `meta` is read to its end before `data` is. Raise SourceLost.
        """
        ...

    def is_due(self) -> bool:
        """Whether a round may begin now; one that would cost the host too much waits."""
        ...

    def position(self) -> Mapping[str, Any] | None:
        """Where a new source would go on behind the last piece yielded, as JSON values; None where it could not.

        To be called before the piece is given to anybody. Raise SourceLost.
        """
        ...

    def hold(self) -> None:
        """Keep hold of what may be gone before the next round; cheap, called many times between two rounds."""
        ...

    def expect(self, ids: Iterable[bytes]) -> None:
        """Given the ids that a base holds, whose next round is the first behind it, say in it also what left of them.

        Raise what reading the ids raises.
        """
        ...

    def behind(self) -> int:
        """Bytes that are known to be there and were not read yet."""
        ...

    def close(self) -> None:
        """Let go of every descriptor."""
        ...
