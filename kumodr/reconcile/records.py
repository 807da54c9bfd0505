"""All that the delivery logs say, as one view over Parquet: `records`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kumodr import errors
from kumodr.ledger.convert import SEGMENT_KEY, SIZE_KEY, Segment, convert
from kumodr.ledger.database import Database, first_line, literal
from kumodr.ledger.evidence import Evidence
from kumodr.ledger.segments import segments_below
from kumodr.source import Progress

_AT_ONCE = 64
_BYTES_AT_ONCE = 256 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VIEW = """CREATE VIEW records AS SELECT try_cast(id AS UUID) AS id, type, recipient, sender, queue, tenant, campaign,
  size, epoch_us(event_time) AS moment, generator, reception_protocol AS protocol FROM read_parquet([{files}])"""
_NONE = """CREATE VIEW records AS SELECT CAST(NULL AS UUID) AS id, '' AS type, '' AS recipient, '' AS sender,
  '' AS queue, '' AS tenant, '' AS campaign, 0 AS size, CAST(0 AS BIGINT) AS moment, false AS generator, '' AS protocol
  WHERE false"""


@dataclass(frozen=True)
class Logged:
    """What was read: `records` are rows, one for each record and recipient; `until` is the time of the newest."""

    records: int
    not_understood: int
    until: datetime | None
    problems: tuple[str, ...]


def load_records(database: Database, evidence: Evidence, progress: Progress) -> Logged:
    """Given the evidence, make the view. Segments that the ledger holds are not read again.

    Raise LogUnreadable, DiskFull; damage in a segment is among the problems.
    """
    parquet: list[str] = []
    known: set[tuple[str, int]] = set()
    if evidence.ledger is not None:
        place = database.alias(evidence.ledger)
        parquet += [str(place / path.name) for path in sorted(evidence.ledger.glob("*.parquet"))]
        known = _checked(database, parquet, evidence.ledger)
    problems: list[str] = []
    done = 0
    for number, batch in enumerate(_batches(_segments(database, evidence, known))):
        made = database.directory / f"log-{number}.parquet"
        problems += convert(database, batch, made)
        parquet.append(str(made))
        done += sum(each.size for each in batch)
        progress("reading delivery logs", done, 0)
    files = ", ".join(literal(each) for each in parquet)
    database.run(_VIEW.format(files=files) if parquet else _NONE)
    count, unknown, newest = database.rows("SELECT count(*), count(*) - count(type), max(moment) FROM records")[0]
    until = None if newest is None else _EPOCH + timedelta(microseconds=newest)
    return Logged(count - unknown, unknown, until, tuple(problems))


def micros(moment: datetime) -> int:
    """Given an aware time, return it as the tables have it: microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int | None) -> datetime | None:
    """Given a time as the tables have it, return the aware time; None for none and for what no calendar has."""
    try:
        return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def _checked(database: Database, parquet: Sequence[str], ledger: Path) -> set[tuple[str, int]]:
    """As `_known`, having seen that the files are what the view needs. Raise FileUnreadable."""
    import duckdb

    try:
        if parquet:
            database.run(_VIEW.format(files=", ".join(map(literal, parquet))))
            database.run("SELECT * FROM records LIMIT 0")
            database.run("DROP VIEW records")
        return _known(database, parquet)
    except (duckdb.Error, ValueError, KeyError) as error:
        raise errors.FileUnreadable(
            f"the ledger {ledger} cannot be read: {first_line(error)}",
            remedy="move it away: the logs themselves are read then",
        ) from error


def _known(database: Database, parquet: Sequence[str]) -> set[tuple[str, int]]:
    """Return the names and sizes of the segments that the ledger holds."""
    known: set[tuple[str, int]] = set()
    for start in range(0, len(parquet), _AT_ONCE):
        found: dict[str, dict[str, str]] = {}
        rows = database.rows(
            "SELECT file_name, decode(key), decode(value) FROM parquet_kv_metadata(?)",
            [parquet[start : start + _AT_ONCE]],
        )
        for file, key, value in rows:
            found.setdefault(file, {})[key] = value
        known |= {(keys[SEGMENT_KEY], int(keys[SIZE_KEY])) for keys in found.values() if SEGMENT_KEY in keys}
    return known


def _segments(database: Database, evidence: Evidence, known: set[tuple[str, int]]) -> Iterator[Segment]:
    for directory in evidence.logs:
        place = database.alias(directory)
        of_the_point = evidence.root is not None and directory == evidence.root / "logs"
        for relative, status in segments_below(directory):
            if not (of_the_point and (relative, status.st_size) in known):
                yield Segment(place / relative, relative, status.st_size)


def _batches(segments: Iterator[Segment]) -> Iterator[list[Segment]]:
    batch: list[Segment] = []
    for each in segments:
        batch.append(each)
        if len(batch) == _AT_ONCE or sum(segment.size for segment in batch) > _BYTES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
