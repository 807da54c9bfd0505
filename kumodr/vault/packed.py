"""Changes of one half of a spool as they lie in a segment: in bulk, so that what is done to all of them is one step."""

import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

ID = 16
"""Bytes of an id, which is the key of every message."""

DELETED = 0xFFFFFFFF
"""The size of a value that is a delete."""

Changes = Mapping[bytes, bytes | None]
"""Key → value of the last put, or None where the last operation was a delete."""


@dataclass(frozen=True)
class PackedChanges:
    """`gone` are the ids that were deleted last, 16 bytes each, joined in ascending order. `keys` and `values` are all
    other changes, joined, the puts; `sizes` has the size of each key and each value in turn. Where both have a key, the
    put counts.
    """

    gone: bytes
    sizes: Sequence[int] = ()
    keys: bytes = b""
    values: bytes | memoryview = b""

    @property
    def count(self) -> int:
        """How many changes there are."""
        return len(self.gone) // ID + len(self.sizes) // 2

    @property
    def are_plain(self) -> bool:
        """Whether the other changes are puts of ids, in an order in which their first bytes ascend."""
        firsts = self.keys[::ID]
        return (
            len(firsts) * 2 == len(self.sizes)
            and set(self.sizes[::2]) <= {ID}
            and DELETED not in self.sizes[1::2]
            and firsts == bytes(sorted(firsts))
        )

    def ends(self) -> list[int]:
        """Given that they are plain, return where each value ends."""
        return list(accumulate(self.sizes[1::2]))

    def others(self) -> dict[bytes, bytes | None]:
        """Return the other changes as a mapping."""
        found: dict[bytes, bytes | None] = {}
        key_at = value_at = 0
        keys, values = self.keys, self.values
        for key_size, value_size in zip(self.sizes[::2], self.sizes[1::2], strict=True):
            key = keys[key_at : key_at + key_size]
            key_at += key_size
            if value_size == DELETED:
                found[key] = None
            else:
                found[key] = bytes(values[value_at : value_at + value_size])
                value_at += value_size
        return found

    def unpacked(self) -> dict[bytes, bytes | None]:
        """Return them as one mapping."""
        keys = struct.unpack(f"{ID}s" * (len(self.gone) // ID), self.gone)
        return dict.fromkeys(keys) | self.others()


def runs(firsts: bytes) -> list[tuple[int, int, int]]:
    """Given ascending bytes, return each that occurs, with where its run begins and ends."""
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(firsts):
        end = firsts.rfind(firsts[at]) + 1
        found.append((firsts[at], at, end))
        at = end
    return found


def parts_of(half: str, changes: Changes) -> list[tuple[str, list[bytes]]]:
    """Given changes, return the parts of a segment's content that hold them: name and pieces. Keys are in order."""
    gone = sorted(key for key, value in changes.items() if value is None and len(key) == ID)
    others = sorted(key for key, value in changes.items() if value is not None or len(key) != ID)
    sizes = array("I")
    values: list[bytes] = []
    for key in others:
        value = changes[key]
        sizes.append(len(key))
        sizes.append(DELETED if value is None else len(value))
        if value is not None:
            values.append(value)
    return [
        (f"{half}.gone", gone),
        (f"{half}.sizes", [_little(sizes).tobytes()]),
        (f"{half}.keys", others),
        (f"{half}.values", values),
    ]


def changes_in(plain: memoryview, parts: Mapping[str, tuple[int, int]], half: str) -> PackedChanges:
    """Given a content and where its parts are, return the changes of a half. Raise ValueError, KeyError."""

    def part(name: str) -> memoryview:
        start, length = parts[f"{half}.{name}"]
        return plain[start : start + length]

    gone, keys, values = part("gone"), part("keys"), part("values")
    firsts = bytes(gone[::ID])
    if len(gone) % ID or firsts != bytes(sorted(firsts)):
        raise ValueError("the deletes are no ids, or in no order")
    sizes = array("I")
    sizes.frombytes(part("sizes"))
    sizes = _little(sizes)
    if len(sizes) % 2 or sum(sizes[::2]) != len(keys):
        raise ValueError("the keys are not the whole")
    of_values = sizes[1::2]
    if sum(of_values) - DELETED * of_values.count(DELETED) != len(values):
        raise ValueError("the values are not the whole")
    return PackedChanges(bytes(gone), sizes, bytes(keys), values)


def _little(sizes: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        sizes = array("I", sizes)
        sizes.byteswap()
    return sizes
