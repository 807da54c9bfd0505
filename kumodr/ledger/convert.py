"""Delivery log segments to Parquet: a row for each record and recipient, made by DuckDB without Python seeing a record.

One that was cut, and one that is damaged, which makes DuckDB give up, is read by `segments.py` as far as that goes, in
pieces of a bounded size; what a damaged one holds beyond the damage is lost, and said.
A line that is no record becomes a row of which everything but `segment` is NULL, so that lines can be counted.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kumodr.ledger.database import Database, globs, literal
from kumodr.ledger.frames import is_whole
from kumodr.ledger.segments import LONGEST_LINE, read_records

SEGMENT_KEY = "kumodr.segment"
SIZE_KEY = "kumodr.size"
PROBLEM_KEY = "kumodr.problem"
_PIECE = 256 << 20
"""Bytes of lines that are written out at once where DuckDB cannot read a segment itself."""

_FIELDS = """{type: 'VARCHAR', id: 'VARCHAR', sender: 'VARCHAR', recipient: 'JSON', queue: 'VARCHAR', site: 'VARCHAR',
 size: 'BIGINT', response: 'STRUCT(code BIGINT, content VARCHAR)', event_time: 'VARCHAR', created_time: 'VARCHAR',
 "timestamp": 'BIGINT', created: 'BIGINT', num_attempts: 'BIGINT', bounce_classification: 'VARCHAR',
 egress_source: 'VARCHAR', meta: 'STRUCT(tenant VARCHAR, campaign VARCHAR)', delivery_protocol: 'VARCHAR',
 reception_protocol: 'VARCHAR', nodeid: 'VARCHAR'}"""

_ROWS = f"""
SELECT type, lower(id) AS id, unnest(CASE json_type(recipient)
    WHEN 'ARRAY' THEN if(json_array_length(recipient) = 0, [NULL], from_json(recipient, '["VARCHAR"]'))
    WHEN 'VARCHAR' THEN [recipient ->> '$'] ELSE [NULL] END) AS recipient,
  sender, queue,
  coalesce(meta.tenant, CASE WHEN label IS NOT NULL THEN nullif(split_part(label, ':', -1), '') END) AS tenant,
  coalesce(meta.campaign, CASE WHEN contains(label, ':') THEN nullif(split_part(label, ':', 1), '') END) AS campaign,
  coalesce(try_cast(event_time AS TIMESTAMPTZ), try(to_timestamp("timestamp"))) AS event_time,
  coalesce(try_cast(created_time AS TIMESTAMPTZ), try(to_timestamp(created))) AS created_time,
  size, response.code AS code, left(response.content, 1000) AS content, num_attempts AS attempts,
  bounce_classification AS classification, site, egress_source, delivery_protocol, reception_protocol,
  nodeid AS node,
  CASE WHEN type = 'XferOut' THEN
    nullif(regexp_extract(lower(response.content), 'new id is ([0-9a-f]{{32}})', 1), '') END AS moved_to,
  coalesce(delivery_protocol = 'HttpInjectionGenerator', false) AS generator,
  CAST(? AS VARCHAR) AS segment
FROM (SELECT *, CASE WHEN contains(queue, '@') AND NOT ends_with(queue, '.xfer.kumomta.internal')
        THEN split_part(queue, '@', 1) END AS label
  FROM read_json(?, format = 'newline_delimited', ignore_errors = true, compression = ?,
    maximum_object_size = {LONGEST_LINE}, columns = {_FIELDS}))"""

COLUMNS = (
    "type", "id", "recipient", "sender", "queue", "tenant", "campaign", "event_time", "created_time", "size", "code",
    "content", "attempts", "classification", "site", "egress_source", "delivery_protocol", "reception_protocol",
    "node", "moved_to", "generator", "segment",
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A segment to convert: where it is, its name in the ledger, and its size when it was listed."""

    path: Path
    name: str
    size: int


def convert(database: Database, segments: Sequence[Segment], target: Path) -> tuple[str, ...]:
    """Given segments, write their records to one Parquet file, mode 0600. Return what was damaged, one text each.

    The file names the segment only where there is just one; it carries that one's size when it was listed, so that a
    reader knows which part of which log it stands for. Raise LogUnreadable, DiskFull.
    """
    whole = [each for each in segments if not globs(str(each.path)) and is_whole(each.path)]
    name = segments[0].name if len(segments) == 1 else ""
    keys = {SEGMENT_KEY: name, SIZE_KEY: str(sum(each.size for each in segments))}
    if len(whole) == len(segments) and _copied(database, name, whole, target, keys):
        return ()
    parts: list[Path] = []
    problems: list[str] = []
    try:
        together = database.directory / "part.parquet"
        if 0 < len(whole) < len(segments) and _copied(database, "", whole, together, {}):
            parts.append(together)
        left = [each for each in segments if not parts or each not in whole]
        for number, each in enumerate(left):
            part = database.directory / f"part-{number}.parquet"
            if each in whole and _copied(database, each.name, [each], part, {}):
                parts.append(part)
                continue
            made, problem = _by_pieces(database, each, number)
            parts += made
            problems += [problem] if problem else []
        _joined(database, parts, target, {**keys, PROBLEM_KEY: "; ".join(problems)[:1000]} if problems else keys)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return tuple(problems)


def _copied(database: Database, name: str, segments: Sequence[Segment], target: Path, keys: Mapping[str, str]) -> bool:
    """Have DuckDB read segments itself. Return False where it cannot: damage in one of them stops it."""
    import duckdb

    try:
        _copy(database, _ROWS, (name or None, [str(each.path) for each in segments], "zstd"), target, keys)
    except duckdb.Error:
        target.unlink(missing_ok=True)
        return False
    return True


def _by_pieces(database: Database, segment: Segment, number: int) -> tuple[list[Path], str | None]:
    """Read one segment by our own reader. Return Parquet files, in order, and what was damaged."""
    parts: list[Path] = []
    records = read_records(segment.path)
    lines = iter(records)
    while True:
        piece = database.directory / "piece.ndjson"
        if not _written(piece, lines):
            piece.unlink()
            break
        parts.append(database.directory / f"part-{number}-{len(parts)}.parquet")
        try:
            _copy(database, _ROWS, (segment.name, [str(piece)], "none"), parts[-1], {})
        finally:
            piece.unlink()
    skipped = f"{records.skipped} lines are too long" if records.skipped else None
    return parts, records.problem or (f"{segment.path}: {skipped}" if skipped else None)


def _written(piece: Path, lines: Iterator[bytes]) -> bool:
    """Write lines to a file until it is large. Return False where there were none."""
    size = 0
    with os.fdopen(os.open(piece, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        for line in lines:
            size += file.write(line) + file.write(b"\n")
            if size >= _PIECE:
                break
    return size > 0


def _joined(database: Database, parts: Sequence[Path], target: Path, keys: Mapping[str, str]) -> None:
    if parts:
        _copy(database, "SELECT * FROM read_parquet(?)", ([str(each) for each in parts],), target, keys)
        return
    empty = database.directory / "empty.ndjson"
    empty.write_bytes(b"")
    _copy(database, _ROWS, (None, [str(empty)], "none"), target, keys)


def _copy(database: Database, select: str, parameters: Sequence[object], target: Path, keys: Mapping[str, str]) -> None:
    pairs = ", ".join(f"{literal(key)}: {literal(value)}" for key, value in keys.items())
    more = f", KV_METADATA {{{pairs}}}" if pairs else ""
    database.run(
        f"COPY ({select}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880{more})",
        parameters,
    )
    target.chmod(0o600)
