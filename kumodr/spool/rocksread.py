"""Read a RocksDB half of a spool through its scratch view."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors
from kumodr.spool.view import open_view, tidy

if TYPE_CHECKING:
    from rocksdict import Rdict, ReadOptions

_READ_AHEAD = 1 << 20
_AT_ONCE = 8
"""Items held at a time; a value may be a message of many megabytes."""

Range = tuple[bytes | None, bytes | None]
"""The first key and the first one behind; None is the beginning, or the end."""


class RocksReader:
    """Keys in order, values whole. Reading to the end without an error means that everything was readable.

    `ranges`, in order, are those that are read.
    """

    def __init__(self, view: Path, ranges: Sequence[Range] = ((None, None),)) -> None:
        self._view = view
        self._ranges = ranges
        self._database: Rdict = open_view(view)

    def ids(self) -> Iterator[bytes]:
        """Yield every key in ascending order. Raise SpoolDamaged where it cannot be read to the end."""
        return chain.from_iterable(self._to_the_end(self._database.keys, lambda item: item))

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value in ascending order. Raise SpoolDamaged where it cannot be read to the end."""
        return chain.from_iterable(self._to_the_end(self._database.items, lambda item: item[0]))

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Yield every key and the size of its value, having read (and so checked) the value. Raise SpoolDamaged."""
        return ((key, len(value)) for key, value in self.entries())

    def get(self, key: bytes) -> bytes | None:
        """Given a key, return its value, or None where there is none. Raise SpoolDamaged."""
        try:
            return self._database.get(key)
        except Exception as error:  # the binding raises nothing more special
            raise errors.SpoolDamaged(f"{key.hex()} cannot be read: {tidy(error, self._view)}") from error

    def close(self) -> None:
        """Close the database; the view can go then."""
        self._database.close()

    def _to_the_end(
        self, begin: Callable[..., Iterator[Any]], key_of: Callable[[Any], bytes]
    ) -> Iterator[Sequence[Any]]:
        """Yield the items of every range, a few at a time: a frame of Python for each would cost more than reading."""
        from rocksdict import ReadOptions

        for first, behind in self._ranges:
            options = ReadOptions()
            options.set_readahead_size(_READ_AHEAD)
            if behind is not None:
                options.set_iterate_upper_bound(behind)
            items = begin(from_key=first, read_opt=options)
            last: Any = None
            while some := tuple(islice(items, _AT_ONCE)):
                yield some
                last = some[-1]
            self._refuse_early_end(options, first if last is None else key_of(last), begun=last is not None)

    def _refuse_early_end(self, options: "ReadOptions", last: bytes | None, *, begun: bool) -> None:
        """The binding's iterators end in silence at damage: step over the end once more, and ask for the status.

        `last` is the last key that was read, or where nothing was, the key to begin at.
        """
        after = f" after {last.hex()}" if begun and last is not None else ""
        try:
            iterator = self._database.iter(options)
            if last is None:
                iterator.seek_to_first()
            else:
                iterator.seek(last)
                if begun and iterator.valid():  # stepping on from nowhere would end the process
                    iterator.next()
            iterator.status()
            more = iterator.valid()
        except Exception as error:  # the binding raises nothing more special
            raise errors.SpoolDamaged(f"it cannot be read{after}: {tidy(error, self._view)}") from error
        if more:
            raise errors.SpoolDamaged(f"reading it ended early{after}")
