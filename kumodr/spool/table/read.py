"""Everything that can be read of one table, whatever is damaged in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from kumodr.spool.table.block import BlockDamaged, Handle, entries
from kumodr.spool.table.footer import Read, Rules, content_of, index_of, rules_of
from kumodr.spool.table.search import search

_PIECE = 1 << 20


@dataclass(frozen=True)
class Gap:
    """Bytes of a table that cannot be read, why, and between which ids its messages lie (None: from or to the end)."""

    offset: int
    size: int
    reason: str
    after: bytes | None
    until: bytes | None


@dataclass(frozen=True)
class Found:
    """One entry: the id, RocksDB's sequence number, its type, and the value."""

    key: bytes
    sequence: int
    kind: int
    value: bytes


def read_table(read: Read, size: int) -> Iterator[tuple[Found, ...] | Gap]:
    """Given a table, yield the entries of each block that can be read, and each gap, in the order of keys.

    Where the index can be read it names the blocks; where it cannot, they are searched for. Keys that are no ids are
    left out: they are not KumoMTA's.
    """
    try:
        rules, index = index_of(read, size)
    except BlockDamaged as reason:
        yield from _searched(read, size, str(reason))
        return
    after: bytes | None = None
    window = _Window(read)
    for number, each in enumerate(index):
        try:
            found = _found(content_of(window.take(each.handle), each.handle, rules))
        except BlockDamaged as damage:
            until = index[number].until
            yield Gap(each.handle.offset, each.handle.size, str(damage), after, until)
            after = until
            continue
        yield found
        after = found[-1].key if found else after


def _searched(read: Read, size: int, reason: str) -> Iterator[tuple[Found, ...] | Gap]:
    at, after = 0, None
    for handle, content in search(read, size, _rules(read, size)):
        found = _found(content)
        if handle.offset > at:
            yield Gap(at, handle.offset - at, "blocks there are damaged", after, found[0].key if found else None)
        yield found
        at, after = handle.end, found[-1].key if found else after
    yield Gap(at, size - at, reason, after, None)


def _rules(read: Read, size: int) -> Rules | None:
    """The footer may be whole where the index is not."""
    try:
        return rules_of(read, size)
    except BlockDamaged:
        return None


def _found(content: bytes) -> tuple[Found, ...]:
    return tuple(
        Found(key[:16], int.from_bytes(key[17:], "little"), key[16], value)
        for key, value in entries(content)
        if len(key) == 24
    )


class _Window:
    """Reads ahead: blocks are small and lie one behind the other."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._at, self._data = 0, b""

    def take(self, handle: Handle) -> bytes:
        start = handle.offset - self._at
        if start < 0 or handle.end > self._at + len(self._data):
            self._at, start = handle.offset, 0
            self._data = self._read(handle.offset, max(_PIECE, handle.end - handle.offset))
        return self._data[start : start + handle.end - handle.offset]
