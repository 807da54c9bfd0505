"""Write a part's changes into a LocalDisk half, and read back what was put."""

from collections.abc import Iterable
from pathlib import Path

from kumodr import errors
from kumodr.recover.halves import LocalHalf
from kumodr.recover.journal import Changed


class Files:
    """The files of a half. `write` parts, then `finish`."""

    def __init__(self, half: Path) -> None:
        self._half = LocalHalf(half)
        self._name = half.name

    def write(self, changed: Changed, gone: Iterable[bytes]) -> None:
        """Given the changes of a part, write its puts, and remove `gone`. Raise ComponentDamaged."""
        for key, place in changed.puts.items():
            value = changed.value(place)
            self._half.put(key, value)
            if self._half.get(key) != value:
                raise errors.ComponentDamaged(f"spool: {self._name} holds another {key.hex()} than the stream put")
        self._half.delete(gone)

    def finish(self) -> list[str]:
        """Make everything durable; there are no tables."""
        self._half.finish()
        return []
