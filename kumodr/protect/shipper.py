"""Segments on their way into the vault, in order, on a thread of their own: a slow vault never slows the reading.

A shipment is done when the vault acknowledged it. Until then it is in memory, or spilled into the backlog; either way
the next one waits behind it, so what the vault has of an epoch is always a whole beginning of it.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kumodr import errors
from kumodr.protect.backlog import Backlog, whole
from kumodr.vault.open import Vault
from kumodr.vault.segment import head_of

MEANWHILE = 0.025
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 15.0
_LARGEST_OTHER = 1 << 30


@dataclass(frozen=True)
class Shipment:
    """One sealed segment; `after` is the loop's position behind it, `facts` what it counts, `taken` of when it is.

    `rollup` ones are extra: they are tried once, and never spilled.
    """

    name: str
    epoch: int
    number: int
    size: int
    hash: str
    taken: datetime
    partial: bool = False
    pieces: Sequence[bytes] | None = None
    after: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rollup: bool = False


class Shipper:
    """Given a vault and a backlog, ship what is offered. Start with `start`, end with `stop`."""

    def __init__(self, vault: Vault, backlog: Backlog, public_key: str) -> None:
        self._vault = vault
        self._backlog = backlog
        self._public_key = public_key
        self._waiting: deque[Shipment] = deque()
        self._done: deque[Shipment] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._held_back = False
        self._thread = threading.Thread(target=self._run, name="kumodr-ship", daemon=True)
        self._trouble: errors.KumodrError | None = None
        self._first_since = 0.0
        self.errors = 0
        """How often the vault did not take a segment."""
        self.ended: tuple[str, str] | None = None
        """Why the epoch cannot go on, as cause and reason; nothing is shipped any more then."""
        self.broken: Exception | None = None
        """What ended the thread, which must not happen: nothing would be shipped, and nobody would say so."""

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def offer(self, shipment: Shipment) -> None:
        """Given a sealed segment, put it behind those that wait."""
        with self._changed:
            if not self._waiting:
                self._first_since = time.monotonic()
            self._waiting.append(shipment)
            self._changed.notify_all()

    def hold_back(self, held: bool) -> None:
        """Ship nothing until it is said that it may go on: what the vault has in front of it is not known."""
        with self._changed:
            self._held_back = held
            self._changed.notify_all()

    def acknowledged(self) -> list[Shipment]:
        """Return what the vault acknowledged since the last call, in order."""
        with self._changed:
            done = list(self._done)
            self._done.clear()
            return done

    def stalled_for(self) -> float:
        """Return for how many seconds the first that waits has been the first; 0 where none waits."""
        with self._changed:
            return time.monotonic() - self._first_since if self._waiting else 0.0

    def waiting(self) -> list[Shipment]:
        """Return what is not acknowledged yet, in order."""
        with self._changed:
            return list(self._waiting)

    def at_risk(self) -> tuple[int, int]:
        """Return how many messages, and of how many bytes, are in what is not acknowledged yet."""
        counts = [each.facts for each in self.waiting() if not each.rollup]
        return sum(each["messages"] for each in counts), sum(each["bytes"] for each in counts)

    @property
    def trouble(self) -> errors.KumodrError | None:
        """Why the vault does not take segments at the moment, or None."""
        return self._trouble

    def spill(self) -> Shipment | None:
        """Put everything that waits in memory into the backlog; return the last of it that has a position behind it.

        Raise BacklogFull where the limit does not allow it, DiskFull.
        """
        last: Shipment | None = None
        with self._changed:
            for place, each in enumerate(self._waiting):
                if each.rollup:
                    continue
                if each.pieces is not None:
                    reason = self._backlog.why_not(each.size)
                    if reason is not None:
                        raise errors.BacklogFull(f"what the vault does not take cannot be kept: {reason}")
                    self._backlog.add(each.epoch, each.number, each.pieces)
                    self._waiting[place] = replace(each, pieces=None)
                last = each
            self._waiting = deque(each for each in self._waiting if not each.rollup)
        return last

    def forget(self) -> None:
        """Let go of everything that waits."""
        with self._changed:
            self._waiting.clear()
            self.ended = None

    def wait_until_empty(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Wait until everything is acknowledged, or nothing more will be, at most so long; return whether all is.

        `meanwhile` is called every `MEANWHILE` seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            meanwhile()
            left = deadline - time.monotonic()
            with self._changed:
                over = self._changed.wait_for(
                    lambda: not self._waiting or self.ended or self.broken, max(0.0, min(left, MEANWHILE))
                )
                if over or left <= MEANWHILE:
                    return not self._waiting

    def stop(self) -> None:
        """End the thread; a call to the vault that hangs is left behind."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(2.0)

    def _run(self) -> None:
        try:
            self._ship_all()
        except Exception as error:  # noqa: BLE001 — whatever it is, the loop must hear of it
            with self._changed:
                self.broken = error
                self._changed.notify_all()

    def _ship_all(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._stopping:
                    return
                shipment = self._waiting[0]
            try:
                self._ship(shipment)
            except errors.KumodrError as error:
                self._trouble = error
                self.errors += 1
                if shipment.rollup:
                    self._finish(shipment, acknowledged=False)
                self._pause(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause, self._trouble = _FIRST_PAUSE, None

    def _has_work(self) -> bool:
        return self._stopping or (bool(self._waiting) and self.ended is None and not self._held_back)

    def _pause(self, longest: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, random.uniform(longest / 2, longest))  # noqa: S311

    def _ship(self, shipment: Shipment) -> None:
        pieces = shipment.pieces
        if pieces is None:
            try:
                pieces = (self._backlog.read(shipment.epoch, shipment.number),)
                whole(pieces[0], shipment.name, self._vault.id)
            except (OSError, errors.KumodrError):
                reason = f"segment {shipment.number} is gone from the backlog, or damaged there"
                self._end(shipment, "state lost", reason)
                return
        if self._vault.store.put_if_absent(shipment.name, pieces) or shipment.rollup or self._is_ours(shipment):
            self._finish(shipment, acknowledged=True)
        else:
            self._end(shipment, "another writer", f"somebody else stored {shipment.name}")

    def _is_ours(self, shipment: Shipment) -> bool:
        """Whether what stands under the name is this very segment: an answer of the store was lost, not the put."""
        data = self._vault.store.get(shipment.name, _LARGEST_OTHER)
        try:
            return head_of(data, shipment.name, self._vault.id).hash == shipment.hash
        except errors.KumodrError:
            return False

    def _end(self, shipment: Shipment, cause: str, reason: str) -> None:
        """Note why the epoch of a shipment cannot go on, unless it was given up meanwhile."""
        with self._changed:
            if self._waiting and self._waiting[0].name == shipment.name:
                self.ended = (cause, reason)
                self._changed.notify_all()

    def _finish(self, shipment: Shipment, *, acknowledged: bool) -> None:
        with self._changed:
            if self._waiting and self._waiting[0].name == shipment.name:
                self._waiting.popleft()
                self._first_since = time.monotonic()
                if acknowledged:
                    self._done.append(replace(shipment, pieces=None))  # a long round collects many
            self._changed.notify_all()
        if not shipment.rollup:
            self._backlog.remove(shipment.epoch, shipment.number)
