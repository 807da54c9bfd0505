"""The records of the newest log segments, for what is of now and not of the day; bounded in number."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from kumodr.ledger.records import Record, parse
from kumodr.ledger.segments import read_records, segment_paths

_MOST = 100_000
_SEGMENTS = 64


def recent_records(directories: Sequence[Path], since: float) -> Iterator[Record]:
    """Given log directories and a time (seconds since 1970), yield the records of segments written since then.

    At most the newest 100,000 of the newest 64 segments of each directory. Raise LogUnreadable.
    """
    for directory in directories:
        newest: deque[bytes] = deque(maxlen=_MOST)
        for path in segment_paths(directory)[-_SEGMENTS:]:
            try:
                if path.stat().st_mtime >= since:
                    newest.extend(read_records(path))
            except FileNotFoundError:
                continue
        yield from (record for line in newest if (record := parse(line)) is not None)
