"""Number, seal and sign the segments of one epoch, and repeat runs of them: a minute as one roll-up, an hour as one.

A roll-up is what makes a day of stream quick to restore: of a thousand and more segments it keeps what stayed. It is
extra: everything in it is in the segments too, and a state is never waited for on its account.

The roll-up of an hour is made of what was in those of its minutes, and held in plain form until then, because this host
has no key that opens them. So it is bounded: where the minutes would pass `LARGEST_LONG`, those that fit are one. A
site so busy that only a few would fit has none: its minutes are large objects already, and holding them costs memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from kumodr.protect.coalesced import Coalesced
from kumodr.protect.shipper import Shipment
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.segment import Content, Draft, sealed

ROLLUP_SPAN = timedelta(seconds=60)
_ROLLUP_BYTES = 12 << 20
_LARGEST_ROLLUP = 16 << 20
"""Of a burst there is none: to hold it and seal it again would cost a quarter of the memory that the loop may use."""
_ROLLUP_WORTH = 8
"""A roll-up of fewer segments is not worth what it costs to send their content twice."""

LONG_SPAN = timedelta(hours=1)
LARGEST_LONG = 32 << 20
"""Bytes of memory; as much again is taken for a moment when it is sealed."""
_LONG_WORTH = 4
"""A long roll-up of fewer minutes is not worth it."""


@dataclass
class _Long:
    """Minutes on their way to be one roll-up, up to number `last`."""

    held: Coalesced
    minutes: int
    last: int
    hash: str | None
    taken: datetime


class SegmentWriter:
    """The end of a stream that is written: what comes next has number `next` and follows `previous`."""

    def __init__(self, vault: Vault, key: NodeKey, epoch: int, following: int, previous: str | None) -> None:
        self._vault = vault
        self._key = key
        self._recipients = vault.public_keys()
        self._held: Coalesced | None = None
        self._long: _Long | None = None
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

    def rollups(self, taken: datetime) -> list[Shipment]:
        """Given the time of the last segment, which was not partial, return the roll-ups that are due."""
        held = self._held
        if held is None or (taken - held.begun < ROLLUP_SPAN and held.size < _ROLLUP_BYTES):
            return []
        self._held = None
        minute = _Long(held, 1, self.next - 1, self.previous, taken)
        found = [self._rolled(minute)] if held.count >= _ROLLUP_WORTH else []
        long = self._long
        if long is not None and (held.first != long.last + 1 or long.held.memory + held.memory > LARGEST_LONG):
            found += self._end_long(long)
            long = None
        if long is not None:
            long.held.add(held.content(), held.count)
            self._long = replace(minute, held=long.held, minutes=long.minutes + 1)
        elif held.memory <= LARGEST_LONG // _LONG_WORTH:
            self._long = minute
        if self._long is not None and taken - self._long.held.begun >= LONG_SPAN:
            found += self._end_long(self._long)
        return found

    def _end_long(self, long: _Long) -> list[Shipment]:
        self._long = None
        return [self._rolled(long)] if long.minutes >= _LONG_WORTH else []

    def _rolled(self, run: _Long) -> Shipment:
        held = run.held
        facts = {"rollup": held.count}
        draft = Draft(self.epoch, held.first, run.last, run.taken, held.previous, facts=facts, hash=run.hash)
        done = sealed(draft, held.content(), self._key, self._vault.id, self._recipients)
        return Shipment(
            name=done.name,
            epoch=self.epoch,
            number=run.last,
            size=done.size,
            hash=done.hash,
            taken=run.taken,
            pieces=done.pieces,
            rollup=True,
        )

    def _hold(self, content: Content, number: int, taken: datetime) -> None:
        if self._held is None:
            self._held = Coalesced(number, self.previous, taken)
        self._held.add(content)
        if self._held.size > _LARGEST_ROLLUP:
            self._held = None
