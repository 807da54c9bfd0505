"""Number, seal and sign the segments of one epoch, and repeat a minute of them as one roll-up.

A roll-up is what makes a day of stream quick to restore: of a thousand and more segments it keeps what stayed. It is
extra: everything in it is in the segments too, and a state is never waited for on its account.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kumodr.protect.shipper import Shipment
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.segment import Content, Draft, LogPiece, sealed

ROLLUP_SPAN = timedelta(seconds=60)
_ROLLUP_BYTES = 12 << 20
_LARGEST_ROLLUP = 16 << 20
"""Of a burst there is none: to hold it and seal it again would cost a quarter of the memory that the loop may use."""
_ROLLUP_WORTH = 8
"""A roll-up of fewer segments is not worth what it costs to send their content twice."""


@dataclass
class _Held:
    """The segments since the last roll-up, coalesced."""

    first: int
    previous: str | None
    begun: datetime
    meta: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    data: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    logs: dict[str, list[LogPiece]] = field(default_factory=dict[str, list[LogPiece]])
    count: int = 0
    size: int = 0

    def add(self, content: Content) -> None:
        """Take a segment's content in: the last operation on a key is what stays of it."""
        for kept, changes in ((self.meta, content.meta), (self.data, content.data)):
            for key, value in changes.items():
                before = kept.get(key)
                self.size += len(value or b"") - len(before or b"")
                kept[key] = value
        for piece in content.logs:
            self.logs.setdefault(piece.path, []).append(piece)
            self.size += len(piece.data)
        self.count += 1


class SegmentWriter:
    """The end of a stream that is written: what comes next has number `next` and follows `previous`."""

    def __init__(self, vault: Vault, key: NodeKey, epoch: int, following: int, previous: str | None) -> None:
        self._vault = vault
        self._key = key
        self._recipients = vault.public_keys()
        self._held: _Held | None = None
        self.epoch = epoch
        self.next = following
        self.previous = previous

    def seal(
        self, content: Content, taken: datetime, *, partial: bool, facts: Mapping[str, Any], after: Mapping[str, Any]
    ) -> Shipment:
        """Given a content and when it was taken, return it as the next segment. `after` gets number and hash."""
        number = self.next
        draft = Draft(self.epoch, number, number, taken, self.previous, partial, facts)
        done = sealed(draft, content, self._key, self._vault.id, self._recipients)
        self._hold(content, number, taken)
        self.next, self.previous = number + 1, done.hash
        return Shipment(
            name=done.name,
            epoch=self.epoch,
            number=number,
            size=done.size,
            hash=done.hash,
            taken=taken,
            partial=partial,
            pieces=done.pieces,
            after={**after, "epoch": self.epoch, "next": self.next, "previous": self.previous},
            facts=facts,
        )

    def rollup(self, taken: datetime) -> Shipment | None:
        """Given the time of the last segment, which was not partial, return a roll-up where one is due."""
        held = self._held
        if held is None or (taken - held.begun < ROLLUP_SPAN and held.size < _ROLLUP_BYTES):
            return None
        self._held = None
        if held.count < _ROLLUP_WORTH:
            return None
        logs = tuple(_joined(pieces) for pieces in held.logs.values())
        draft = Draft(
            self.epoch,
            held.first,
            self.next - 1,
            taken,
            held.previous,
            facts={"rollup": held.count},
            hash=self.previous,
        )
        content = Content(held.meta, held.data, tuple(piece for each in logs for piece in each))
        done = sealed(draft, content, self._key, self._vault.id, self._recipients)
        return Shipment(
            name=done.name,
            epoch=self.epoch,
            number=self.next - 1,
            size=done.size,
            hash=done.hash,
            taken=taken,
            pieces=done.pieces,
            rollup=True,
        )

    def _hold(self, content: Content, number: int, taken: datetime) -> None:
        if self._held is None:
            self._held = _Held(number, self.previous, taken)
        self._held.add(content)
        if self._held.size > _LARGEST_ROLLUP:
            self._held = None


def _joined(pieces: list[LogPiece]) -> list[LogPiece]:
    """Return the pieces of one log with those that touch made one."""
    found: list[LogPiece] = []
    run: list[LogPiece] = []
    for piece in pieces:
        if run and run[-1].offset + len(run[-1].data) != piece.offset:
            found.append(_one(run))
            run = []
        run.append(piece)
    return [*found, _one(run)]


def _one(run: list[LogPiece]) -> LogPiece:
    last = run[-1]
    return LogPiece(last.path, run[0].offset, b"".join(each.data for each in run), last.mode, last.mtime_ns)
