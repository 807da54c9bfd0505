"""Read a RocksDB half of a spool through its scratch view."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumodr import errors
from kumodr.spool.view import open_view, tidy

if TYPE_CHECKING:
    from rocksdict import Rdict, ReadOptions

_READ_AHEAD = 1 << 20


class RocksReader:
    """Keys in order, values whole. Reading to the end without an error means that everything was readable."""

    def __init__(self, view: Path) -> None:
        self._view = view
        self._database: Rdict = open_view(view)

    def ids(self) -> Iterator[bytes]:
        """Yield every key in ascending order. Raise SpoolDamaged where it cannot be read to the end."""
        return self._to_the_end(lambda options: self._database.keys(read_opt=options), lambda item: item)

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value in ascending order. Raise SpoolDamaged where it cannot be read to the end."""
        return self._to_the_end(lambda options: self._database.items(read_opt=options), lambda item: item[0])

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
        self, begin: "Callable[[ReadOptions], Iterator[Any]]", key_of: Callable[[Any], bytes]
    ) -> Iterator[Any]:
        from rocksdict import ReadOptions

        options = ReadOptions()
        options.set_readahead_size(_READ_AHEAD)
        item: Any = None
        for item in begin(options):
            yield item
        self._refuse_early_end(options, None if item is None else key_of(item))

    def _refuse_early_end(self, options: "ReadOptions", last: bytes | None) -> None:
        """The binding's iterators end in silence at damage: step over the end once more, and ask for the status."""
        after = "" if last is None else f" after {last.hex()}"
        try:
            iterator = self._database.iter(options)
            if last is None:
                iterator.seek_to_first()
            else:
                iterator.seek(last)
                iterator.next()
            iterator.status()
            more = iterator.valid()
        except Exception as error:  # the binding raises nothing more special
            raise errors.SpoolDamaged(f"it cannot be read{after}: {tidy(error, self._view)}") from error
        if more:
            raise errors.SpoolDamaged(f"reading it ended early{after}")
