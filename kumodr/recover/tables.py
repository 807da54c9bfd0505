"""Make tables for a RocksDB half, in order of key, read them back, and take them into the database as they are.

A table that was made outside is a file that the database links and notes: no memory table, no log, no merging, and a
few large tables where writing would leave many small ones on top of each other, which would slow KumoMTA down.
"""

import hashlib
import shutil
import struct
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c

from kumodr import errors
from kumodr.recover.halves import take_in
from kumodr.recover.journal import Changed
from kumodr.spool.writer import table_options

if TYPE_CHECKING:
    from rocksdict import Rdict, ReadOptions, SstFileWriter

_WORD = struct.Struct("<III")
_SMALLEST_LIMIT = 256 << 20
_READ_AHEAD = 1 << 20
_AT_ONCE = 8
_MOST = 6
"""Tables that one share makes: some memory is held for each block of a table, and RocksDB slows down at 20 of them."""


class Tables:
    """The tables of one share of a half, `place` its private directory. `write` parts in order, then `finish`."""

    def __init__(self, half: Path, place: Path, size: int) -> None:
        self._half = half
        self._place = place
        self._limit = max(_SMALLEST_LIMIT, -(-size // _MOST))
        self._writer: SstFileWriter | None = None
        self._size = 0
        self._paths: list[Path] = []
        self._puts = 0
        self._words = hashlib.sha256()
        place.mkdir(mode=0o700)

    def write(self, changed: Changed, gone: Collection[bytes]) -> None:
        """Given the changes of a part, write its puts, and deletes of `gone`. Raise ComponentDamaged, DiskFull."""
        puts = changed.puts
        self._puts += len(puts)
        keys = sorted([*puts, *gone])
        if not keys:
            return
        words: list[bytes] = []
        try:
            writer = self._writer or self._begin()
            for key in keys:
                place = puts.get(key)
                if place is None:
                    del writer[key]
                else:
                    value = changed.value(place)
                    writer[key] = value
                    words.append(_word(key, value))
                    self._size += place[1]
        except errors.KumodrError:
            raise
        except Exception as error:  # the binding raises nothing more special
            raise errors.DiskFull(_sentence(self._half, error)) from error
        self._words.update(b"".join(words))
        if self._size >= self._limit:
            self._end()

    def finish(self) -> list[str]:
        """Return the paths of the tables, in order, after every put was read back from them. Raise ComponentDamaged."""
        self._end()
        if not self._paths:
            return []
        check = self._place / "check"
        links = [self._place / f"link-{path.name}" for path in self._paths]
        for path, link in zip(self._paths, links, strict=True):
            link.hardlink_to(path)
        database = _empty(check)
        try:
            take_in(database, [str(link) for link in links], self._half)
            words, count, items = hashlib.sha256(), 0, database.items(read_opt=_reading())
            while some := tuple(islice(items, _AT_ONCE)):
                words.update(b"".join([_word(key, value) for key, value in some]))
                count += len(some)
        finally:
            database.close()
        shutil.rmtree(check)
        if count != self._puts or words.digest() != self._words.digest():
            raise errors.ComponentDamaged(
                f"spool: {self._half.name} was written with something else than the stream put"
            )
        return [str(path) for path in self._paths]

    def _begin(self) -> "SstFileWriter":
        from rocksdict import SstFileWriter

        self._writer = SstFileWriter(table_options(compressed=False))
        path = self._place / f"{len(self._paths)}.sst"
        self._writer.open(str(path))
        self._paths.append(path)
        self._size = 0
        return self._writer

    def _end(self) -> None:
        if self._writer is not None:
            try:
                self._writer.finish()
            except Exception as error:  # the binding raises nothing more special
                raise errors.DiskFull(_sentence(self._half, error)) from error
        self._writer = None


def _word(key: Any, value: bytes) -> bytes:
    return _WORD.pack(len(key), len(value), google_crc32c.value(value)) + key


def _reading() -> "ReadOptions":
    from rocksdict import ReadOptions

    options = ReadOptions()
    options.set_readahead_size(_READ_AHEAD)
    options.fill_cache(False)  # pyright: ignore[reportCallIssue] — its stub is wrong
    return options


def _empty(place: Path) -> "Rdict":
    from rocksdict import Rdict

    options = table_options()
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_max_open_files(256)
    return Rdict(str(place), options)


def _sentence(half: Path, error: Exception) -> str:
    return f"{half} cannot be written: {' '.join(str(error).split())[:400]}"
