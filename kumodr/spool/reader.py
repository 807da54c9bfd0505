"""Read a spool, live or a copy, without changing anything in it: ids, metadata, bodies."""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kumodr import errors
from kumodr.spool.examine import Reader
from kumodr.spool.identifier import key_of_text
from kumodr.spool.metadata import Metadata, parse
from kumodr.spool.snapshot import snapshot


class Spool:
    """Both halves, readable. Use through `open_spool`. Ids are text; iteration is in order of id, in bounded memory.

    A RocksDB half is one moment; a LocalDisk half is read as it is at each call.
    """

    def __init__(self, kind: str, meta: Reader, data: Reader) -> None:
        self.kind = kind
        self._meta = meta
        self._data = data

    def ids(self) -> Iterator[str]:
        """Yield the id of every message that has metadata. Raise SpoolDamaged where it cannot be read to the end."""
        return (key.hex() for key in self._meta.ids())

    def body_ids(self) -> Iterator[str]:
        """Yield the id of every body. Raise SpoolDamaged where it cannot be read to the end."""
        return (key.hex() for key in self._data.ids())

    def entries(self) -> Iterator[tuple[str, bytes]]:
        """Yield every id with its metadata as stored (`metadata.parse` reads it). Raise SpoolDamaged."""
        return ((key.hex(), raw) for key, raw in self._meta.entries())

    def bodies(self) -> Iterator[tuple[str, bytes]]:
        """Yield every id that has a body, with its bytes. Raise SpoolDamaged."""
        return ((key.hex(), body) for key, body in self._data.entries())

    def count(self) -> int:
        """Return how many messages have metadata. Raise SpoolDamaged."""
        return sum(1 for _ in self._meta.ids())

    def raw_metadata(self, identifier: str) -> bytes:
        """Given an id, return its metadata as stored. Raise MessageMissing, UsageWrong for what is no id."""
        return self._get(self._meta, identifier, "metadata")

    def metadata(self, identifier: str) -> Metadata:
        """Given an id, return its metadata. Raise MessageMissing, UsageWrong, MetadataUnreadable with the reason."""
        return parse(self.raw_metadata(identifier))

    def body(self, identifier: str) -> bytes:
        """Given an id, return the message's bytes exactly as accepted. Raise MessageMissing, UsageWrong."""
        return self._get(self._data, identifier, "body")

    def _get(self, half: Reader, identifier: str, what: str) -> bytes:
        found = half.get(key_of_text(identifier))
        if found is None:
            raise errors.MessageMissing(f"the spool holds no {what} of message {identifier}")
        return found


@contextmanager
def open_spool(meta: Path, data: Path, kind: str = "auto") -> Generator[Spool, None, None]:
    """Given both halves' directories, give the spool for reading. Nothing there is written or locked.

    Raise SpoolMissing, SpoolUnreadable, SpoolChanging, SpoolDamaged, DiskFull.
    """
    with ExitStack() as held:
        taken = held.enter_context(snapshot(meta, data, kind))
        scratch = Path(tempfile.mkdtemp(prefix="kumodr-view-"))
        held.callback(shutil.rmtree, scratch, ignore_errors=True)
        readers = taken.readers(scratch)
        for reader in readers.values():
            held.callback(reader.close)
        yield Spool(taken.kind, readers["meta"], readers["data"])
