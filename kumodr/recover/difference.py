"""What differs between two spools: ids that only one of them holds, and metadata that changed. Memory stays bounded."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self

from kumodr.spool.reader import Spool


@dataclass
class Ids:
    """Ids in order, as many as there are, kept on disk."""

    file: IO[bytes]
    count: int = 0

    @classmethod
    def new(cls) -> Self:
        """Return an empty list."""
        return cls(tempfile.TemporaryFile(buffering=1 << 16))

    def add(self, identifier: str) -> None:
        """Given an id, add it."""
        self.file.write(f"{identifier}\n".encode())
        self.count += 1

    def __iter__(self) -> Iterator[str]:
        self.file.seek(0)
        for line in self.file:
            yield line.decode().rstrip("\n")


@dataclass(frozen=True)
class Difference:
    """`only_a`, `only_b` and `changed` are ids; `same` is how many are in both with the same metadata."""

    only_a: Ids
    only_b: Ids
    changed: Ids
    same: int


def difference(a: Spool, b: Spool) -> Difference:
    """Given two open spools, compare their metadata by id. Raise SpoolDamaged."""
    only_a, only_b, changed = Ids.new(), Ids.new(), Ids.new()
    same = 0
    left_items, right_items = a.entries(), b.entries()
    left, right = next(left_items, None), next(right_items, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            if left is not None:
                only_a.add(left[0])
            left = next(left_items, None)
        elif left is None or right[0] < left[0]:
            only_b.add(right[0])
            right = next(right_items, None)
        else:
            if left[1] != right[1]:
                changed.add(left[0])
            else:
                same += 1
            left, right = next(left_items, None), next(right_items, None)
    return Difference(only_a, only_b, changed, same)
