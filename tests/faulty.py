"""A store that stalls, refuses, or loses its answer, when it is told to."""

import threading
from collections.abc import Iterator, Sequence

from kumodr import errors
from kumodr.vault.store import Entry, Piece, Store


class FaultyStore:
    """A store in front of another. `faults` are used up by puts, one each: "before" fails without storing, "after"
    stores and fails all the same, "cut" the same by another error; None lets one through. `broken` refuses every call.
    Puts wait where the gate is closed, and all other calls too where it `hangs`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.faults: list[str | None] = []
        self.broken: errors.KumodrError | None = None
        self.hangs = False
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.puts = 0

    @property
    def address(self) -> str:
        return self._store.address

    def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
        self.open_gate.wait(30)
        self._refuse()
        self.puts += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault == "before":
            raise errors.StoreUnavailable(f"the connection broke before {name}")
        done = self._store.put_if_absent(name, pieces)
        if fault in ("after", "cut"):
            raise errors.StoreUnavailable(f"the answer for {name} was lost")
        return done

    def get(self, name: str, limit: int) -> bytes:
        self._refuse()
        return self._store.get(name, limit)

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        self._refuse()
        return self._store.start(name, length)

    def size(self, name: str) -> int | None:
        self._refuse()
        return self._store.size(name)

    def unconditional(self) -> Store:
        return self

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        self._refuse()
        return self._store.list(prefix, after)

    def entries(self, prefix: str) -> Iterator[Entry]:
        self._refuse()
        return self._store.entries(prefix)

    def delete(self, names: Sequence[str]) -> None:
        self._refuse()
        self._store.delete(names)

    def _refuse(self) -> None:
        if self.hangs:
            self.open_gate.wait(60)
        if self.broken is not None:
            raise self.broken
