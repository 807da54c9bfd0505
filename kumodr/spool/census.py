"""Count a spool: the messages in both halves, and those that are in one only."""

from collections.abc import Iterator
from dataclasses import dataclass

LISTED = 10_000
"""How many ids a list of a census names at most; the counts are always whole."""

Sizes = Iterator[tuple[bytes, int]]
"""Keys in ascending order, each with the size of its content in bytes."""


@dataclass(frozen=True)
class SpoolCensus:
    """What a spool holds. `problem` is the reason why it does not count as readable, or None.

    `without_body` and `without_meta` name ids, at most LISTED of each. `unreadable` names what was passed over.
    """

    meta_count: int = 0
    data_count: int = 0
    meta_bytes: int = 0
    body_bytes: int = 0
    without_body_count: int = 0
    without_body: tuple[str, ...] = ()
    without_meta_count: int = 0
    without_meta: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    problem: str | None = None


def paired(meta: Sizes, data: Sizes) -> Iterator[tuple[bytes, int | None, int | None]]:
    """Given both halves in ascending order of key, yield each key once with its sizes; None where it is absent."""
    left, right = next(meta, None), next(data, None)
    while True:
        if left is not None and (right is None or left[0] < right[0]):
            yield left[0], left[1], None
            left = next(meta, None)
        elif right is not None and (left is None or right[0] < left[0]):
            yield right[0], None, right[1]
            right = next(data, None)
        elif left is not None and right is not None:
            yield left[0], left[1], right[1]
            left, right = next(meta, None), next(data, None)
        else:
            return


def count(meta: Sizes, data: Sizes) -> SpoolCensus:
    """Given both halves in ascending order of key, return the census. Memory does not grow with the spool.

    Whatever the iterators raise passes through.
    """
    meta_count = data_count = meta_bytes = body_bytes = without_body_count = without_meta_count = 0
    without_body: list[str] = []
    without_meta: list[str] = []
    for key, meta_size, body_size in paired(meta, data):
        if meta_size is not None:
            meta_count += 1
            meta_bytes += meta_size
        if body_size is not None:
            data_count += 1
            body_bytes += body_size
        if body_size is None:
            without_body_count += 1
            if len(without_body) < LISTED:
                without_body.append(key.hex())
        elif meta_size is None:
            without_meta_count += 1
            if len(without_meta) < LISTED:
                without_meta.append(key.hex())
    return SpoolCensus(
        meta_count=meta_count,
        data_count=data_count,
        meta_bytes=meta_bytes,
        body_bytes=body_bytes,
        without_body_count=without_body_count,
        without_body=tuple(without_body),
        without_meta_count=without_meta_count,
        without_meta=tuple(without_meta),
    )
