"""Read a stream in order: each segment fetched and opened ahead of who applies it, checked, and bounded in memory.

What ends the usable range is a gap, a head that does not follow the one before, or an object that is damaged: what came
before stays usable. A damaged roll-up is only named where the single segments that it repeats are there.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from kumodr import errors
from kumodr.vault.keys import Identities
from kumodr.vault.open import Vault
from kumodr.vault.segment import LARGEST, LARGEST_HEAD, Head, PackedContent, body_at, packed_content_of
from kumodr.vault.stream import NOT_GOOD, Listing, Part, Trust, path, read_head

_Outcome = TypeVar("_Outcome")
_WORKERS = 4
_AHEAD = 16
IN_FLIGHT = 64 << 20
"""Bytes, sealed and plain, that are held at once; beside them only the segment that is next."""


@dataclass(frozen=True)
class Segment:
    """One object of the stream, opened and in its place in the chain."""

    part: Part
    head: Head
    content: PackedContent


class Reading:
    """One pass over a stream, from number `begin` to `end`. Iterate it once; then `problems` say what was wrong.

    `last` is the number up to which it was good, `begin - 1` before the first. Raise WrongKey, StoreUnavailable.
    `previous` is the hash of the head before `begin`, where that is known.
    """

    def __init__(
        self,
        vault: Vault,
        found: Listing,
        begin: int,
        end: int,
        trust: Trust,
        identities: Identities,
        previous: str | None = None,
    ) -> None:
        self._vault = vault
        self._found = found
        self._begin = begin
        self._end = end
        self._trust = trust
        self._identities = identities
        self.last = begin - 1
        self.hash = previous
        self.problems: list[errors.KumodrError] = []

    def __iter__(self) -> Iterator[Segment]:
        without: set[Part] = set()
        while self.last < self._end:
            parts = path(self._found, self.last + 1, self._end, without)
            for part, outcome in opened(self._vault, parts, self._trust, self._identities):
                error = outcome if isinstance(outcome, errors.KumodrError) else self._why_not_next(outcome.head)
                if isinstance(outcome, Segment) and error is None:
                    self.last, self.hash = outcome.head.last, outcome.head.hash
                    yield outcome
                    continue
                self.problems += [error] if error else []
                if part.first == part.last:
                    return
                without.add(part)
                break
            else:
                if self.last < self._end:
                    name = Part(self._found.node, self._found.epoch, self.last + 1, self.last + 1).name
                    self.problems.append(errors.ChainBroken(f"{name} is missing"))
                return

    def _why_not_next(self, head: Head) -> errors.KumodrError | None:
        """Return why a head does not follow what was read so far, or None."""
        first_of_all = head.first == 1 and head.previous is not None
        another = self.hash is not None and head.first == self.last + 1 and head.previous != self.hash
        if first_of_all or another:
            name = Part(head.node, head.epoch, head.first, head.last).name
            return errors.ChainBroken(f"{name} does not follow the segment before it that is in the vault")
        return None


def opened(
    vault: Vault, parts: Iterator[Part], trust: Trust, identities: Identities
) -> Iterator[tuple[Part, Segment | errors.KumodrError]]:
    """Given parts, yield each in order with what is in it, or why it does not count. Raise WrongKey, StoreUnavailable.

    They are fetched and opened ahead, beside each other, at most `IN_FLIGHT` bytes of them at once.
    """
    budget = _Budget(IN_FLIGHT)
    yield from _ahead(parts, lambda part, turn: _open(vault, part, trust, identities, budget, turn), budget)


def heads(vault: Vault, parts: Iterator[Part], trust: Trust) -> Iterator[tuple[Part, Head | errors.KumodrError]]:
    """Given parts, yield each in order with its head, or why it does not count. Raise StoreUnavailable."""

    def read(part: Part, _turn: int) -> Head | errors.KumodrError:
        try:
            return read_head(vault, part, trust)
        except NOT_GOOD as error:
            return error

    yield from _ahead(parts, read, _Budget(0))


def _ahead(
    parts: Iterator[Part], work: "Callable[[Part, int], _Outcome]", budget: "_Budget"
) -> "Iterator[tuple[Part, _Outcome]]":
    waiting: deque[tuple[Part, Future[_Outcome]]] = deque()
    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="kumodr-stream")
    try:
        for turn, part in enumerate(islice(parts, _AHEAD)):
            waiting.append((part, pool.submit(work, part, turn)))
        turn = len(waiting)
        while waiting:
            part, future = waiting.popleft()
            outcome = future.result()
            yield part, outcome
            del outcome, future
            budget.next()
            if (following := next(parts, None)) is not None:
                waiting.append((following, pool.submit(work, following, turn)))
                turn += 1
    finally:
        budget.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _open(
    vault: Vault, part: Part, trust: Trust, identities: Identities, budget: "_Budget", turn: int
) -> Segment | errors.KumodrError:
    try:
        head = read_head(vault, part, trust)
        budget.take(turn, head.sealed_size + 2 * head.plain_size)
        data = vault.store.get(part.name, LARGEST + 2 * LARGEST_HEAD)
        if len(data) != body_at(data) + head.sealed_size:
            raise errors.ObjectDamaged(f"object {part.name} is damaged")
        return Segment(part, head, packed_content_of(data, head, identities.secrets))
    except NOT_GOOD as error:
        return error


class _Budget:
    """Bytes that may be held at once. The segment whose turn it is never waits: memory is the limit plus that one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[int, int] = {}
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, turn: int, size: int) -> None:
        """Given a segment's place in order and its bytes, wait until they may be held."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or turn == self._turn or self._room() >= size)
            self._held[turn] = size

    def next(self) -> None:
        """The segment whose turn it was is let go; the one after it is next."""
        with self._changed:
            self._held.pop(self._turn, None)
            self._turn += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _room(self) -> int:
        return self._limit - sum(self._held.values())
