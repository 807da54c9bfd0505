"""A recovered spool reconciled against its delivery logs: made, planned, measured, and the counts compared.

`python -m benchmarks.ledger FOLDER RECORDS MESSAGES NEWEST` makes `FOLDER/restored` as a restore would leave it;
`python -m benchmarks.ledger convert LOGS LEDGER` makes the Parquet files of its segments.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measure import Command, Usage, measure
from benchmarks.spool import opened, settle
from benchmarks.table import columns, facts
from kumodr.components.ledger import parquet_name
from kumodr.ledger.convert import Segment, convert
from kumodr.ledger.database import Database, literal, open_database
from kumodr.recover.target import MARKER
from kumodr.spool.identifier import TICKS_BEFORE_1970

REPOSITORY = Path(__file__).resolve().parent.parent
_RECORDS_A_SEGMENT = 100_000
_PERIOD = timedelta(hours=6)
_WANTED_SECONDS = 60
_WANTED_MEMORY = 1 << 30


@dataclass(frozen=True)
class Made:
    """What was made: rows of logs, messages in the spool, sizes in bytes, and how many of each treatment it holds."""

    records: int
    messages: int
    segments: int
    logs_size: int
    ledger_size: int
    spool_size: int
    expected: Mapping[str, int]


def run(work: Path, records: int, messages: int, say: Callable[[str], None]) -> tuple[Made, dict[str, Usage]]:
    """Given a folder and sizes, make the restored directory and measure. Raise ValueError for a wrong answer."""
    folder = work / "dataset"
    newest = datetime.now(UTC).replace(microsecond=0)
    say(f"making {records:,} records and {messages:,} messages in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    words = (sys.executable, "-m", "benchmarks.ledger")
    made = (*words, str(folder), str(records), str(messages), newest.isoformat())
    subprocess.run(made, check=True, cwd=REPOSITORY)
    expected = json.loads((folder / "expected.json").read_text())
    restored = folder / "restored"
    usages: dict[str, Usage] = {}
    usages["logs to Parquet"] = _measured((*words, "convert", str(restored / "logs"), str(restored / "ledger")), say)
    plan = (sys.executable, "-m", "benchmarks.ledger", "plan", str(restored), str(folder / "plan.json"))
    usages["plan, from Parquet"] = _measured(plan, say)
    compare(json.loads((folder / "plan.json").read_text()), expected)
    (restored / "ledger").rename(folder / "ledger")
    usages["plan, from raw logs"] = _measured(plan, say)
    compare(json.loads((folder / "plan.json").read_text()), expected)
    segments = [path.stat().st_size for path in (restored / "logs").rglob("*") if path.is_file()]
    return Made(
        records=records,
        messages=messages,
        segments=len(segments),
        logs_size=sum(segments),
        ledger_size=sum(path.stat().st_size for path in (folder / "ledger").iterdir()),
        spool_size=sum(path.stat().st_size for path in (restored / "spool").rglob("*") if path.is_file()),
        expected=expected,
    ), usages


def compare(document: Mapping[str, object], expected: Mapping[str, int]) -> None:
    """Given the plan's document and what was made, raise ValueError where they differ."""
    for name, count in expected.items():
        part = document[name]
        if not isinstance(part, dict) or part["count"] != count or len(part["ids"]) != count:
            raise ValueError(f"{name}: {count} were made, the plan says {str(part)[:60]}")


def ledger_section(made: Made, usages: Mapping[str, Usage], about: Mapping[str, Mapping[str, str]], day: str) -> str:
    """Given what was measured, return the section of the page."""
    usage = usages["plan, from Parquet"]
    reached = usage.seconds <= _WANTED_SECONDS and usage.peak <= _WANTED_MEMORY
    rows = [
        [name, f"{each.seconds:.1f} s", f"{each.processor:.1f} s", f"{each.peak / 2**20:,.0f} MiB"]
        for name, each in usages.items()
    ]
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in made.expected.items())
    lines = [
        "## A spool reconciled with its delivery logs",
        "",
        f"Measured {day} by `script/bench ledger`.",
        "",
        f"- Logs: {made.records:,} records in {made.segments:,} segments, {made.logs_size / 1e6:,.0f} MB of zstd",
        f"- The same as Parquet: {made.ledger_size / 1e6:,.0f} MB",
        f"- Spool: {made.messages:,} messages with small bodies, RocksDB, {made.spool_size / 1e6:,.0f} MB",
        f"- The plan's counts are those that were made: {counts}",
        *(facts(title, pairs) for title, pairs in about.items()),
        "",
        *columns(
            ("goal", "wanted", "measured", "reached"),
            [
                [
                    "plan, from Parquet",
                    f"≤ {_WANTED_SECONDS} s, 1 GiB",
                    f"{usage.seconds:.1f} s, {usage.peak / 2**20:,.0f} MiB",
                    "yes" if reached else "no",
                ]
            ],
        ),
        "",
        *columns(("what", "time", "processor", "peak memory"), rows),
        "",
        "- `kumodr spool reconcile --json` on the restored directory, whole processes: the spool vetted and read,",
        "  every record compared, lists made. Peak memory is resident memory of all its processes at one moment.",
    ]
    return "\n".join(lines)


def _measured(words: tuple[str, ...], say: Callable[[str], None]) -> Usage:
    usage = measure(Command(words, folder=REPOSITORY))
    say(f"{usage.seconds:8.1f} s {usage.peak / 2**20:8.0f} MiB  {' '.join(words[3:5])}")
    return usage


def make(folder: Path, records: int, messages: int, newest: datetime) -> object:
    """Given an empty folder, make logs and spool in `restored`, and `expected.json` beside. Return the open databases.

    Of nine messages two are in the spool. Of those, 60 % wait after a failed try, 10 % were never tried, 20 % are
    delivered, 10 % have three recipients of which one is delivered. Of the others all are delivered, but for one in
    2,000, which is lost.
    """
    restored = folder / "restored"
    (restored / "logs" / "1-kumomta").mkdir(parents=True, mode=0o700)
    made = _Made(newest, messages, messages * 9 // 2)
    expected = dict.fromkeys(("to_send", "trimmed", "uncertain", "finished", "lost"), 0)
    databases = opened(restored / "spool" / "data"), opened(restored / "spool" / "meta")
    for number in range(made.total):
        if number % 9 < 2:
            databases[0].put(made.key(number), b"Subject: x\r\n\r\nsmall\r\n")
            databases[1].put(made.key(number), made.meta(number))
            expected[made.treatment(number)] += 1
        elif number % 2000 == 7:
            expected["lost"] += 1
        if number == made.total * 9 // 10:
            settle(databases[0])
            settle(databases[1])
    for name in ("data", "meta"):
        for extra in ("rocksdict-config.json", "LOG", "LOCK"):
            (restored / "spool" / name / extra).unlink(missing_ok=True)
    with open_database([restored]) as database:
        _logs(database, restored / "logs" / "1-kumomta", made, records)
    # The copy is of before the first message was accepted by this clock: what is not in it is lost, and certainly.
    taken = (newest - 2 * _PERIOD).isoformat().replace("+00:00", "Z")
    marker = {"components": {"spool": {"taken": taken}, "logs": {"taken": taken}}}
    (restored / MARKER).write_text(json.dumps(marker))
    (folder / "expected.json").write_text(json.dumps(expected))
    return databases


@dataclass(frozen=True)
class _Made:
    """The messages by number: times spread over the period, a treatment by rule."""

    newest: datetime
    spooled: int
    total: int

    @property
    def first_tick(self) -> int:
        return int((self.newest - _PERIOD).timestamp()) * 10_000_000 + TICKS_BEFORE_1970

    @property
    def step(self) -> int:
        return int(_PERIOD.total_seconds() * 10_000_000 * 0.9) // self.total

    def key(self, number: int) -> bytes:
        ticks = self.first_tick + number * self.step
        return _KEY.pack(ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF | 0x1000, _NODE)

    def treatment(self, number: int) -> str:
        of = number // 9 % 20
        return "to_send" if of < 12 else "uncertain" if of < 14 else "finished" if of < 18 else "trimmed"

    def meta(self, number: int) -> bytes:
        to = [f"user{number}@d{number % 500}.test"]
        if self.treatment(number) == "trimmed":
            to += [f"second{number}@d{number % 500}.test", f"third{number}@d{number % 500}.test"]
        return json.dumps(
            {
                "sender": f"news@s{number % 40}.test",
                "recipient": to[0] if len(to) == 1 else to,
                "meta": {
                    "tenant": f"t{number % 40}",
                    "campaign": f"c{number % 7}",
                    "reception_protocol": "ESMTP",
                    "received_from": "192.0.2.17:53122",
                    "hostname": "mx.example.test",
                },
                "schedule": None,
            },
            separators=(",", ":"),
        ).encode()


_KEY = struct.Struct(">IHHQ")
_NODE = 0x8001_660AAECCDE59

_RECORDS = """
WITH numbers AS (SELECT range AS n, {first} + range * {step} AS ticks FROM range({begin}, {end})),
messages AS (SELECT n, n % 9 < 2 AS spooled, n // 9 % 20 AS part, ticks,
    printf('%08x%04x%04x8001660aaeccde59', ticks & 4294967295, (ticks >> 32) & 65535, ((ticks >> 48) & 4095) | 4096)
      AS id,
    'user' || n || '@d' || n % 500 || '.test' AS one,
    'c' || n % 7 || ':t' || n % 40 || '@d' || n % 500 || '.test' AS queue FROM numbers),
events AS (
  SELECT *, 'Reception' AS type, 0 AS later, 250 AS code FROM messages
  UNION ALL SELECT *, 'Delivery', 3, 250 FROM messages
    WHERE CASE WHEN spooled THEN part BETWEEN 14 AND 19 ELSE n % 2000 <> 7 END
  UNION ALL SELECT *, 'TransientFailure', NULL, 451 FROM messages WHERE spooled AND (part < 12 OR part >= 18)
  UNION ALL SELECT *, 'TransientFailure', 1, 451 FROM messages WHERE NOT spooled AND hash(n) % 1000 < {more})
SELECT type, id, 'news@s' || n % 40 || '.test' AS sender,
  CASE WHEN spooled AND part >= 18 AND type <> 'Delivery' THEN to_json(list_concat(
      CASE type WHEN 'Reception' THEN [one] ELSE [] END,
      [replace(one, 'user', 'second'), replace(one, 'user', 'third')]))
    ELSE to_json(one) END AS recipient,
  queue, 'unspecified->mx.d' || n % 500 || '.test@smtp_client' AS site, 4321 AS size,
  {{code: code, enhanced_code: {{class: code // 100, subject: 2, detail: 0}}, content: 'OK ids=' || md5(id),
    command: chr(46) || chr(13) || chr(10)}} AS response,
  {{name: 'mx.d' || n % 500 || '.test', addr: '192.0.2.9:25'}} AS peer_address,
  epoch_us(moment) // 1000000 AS timestamp, strftime(moment, '%Y-%m-%dT%H:%M:%S.%fZ') AS event_time,
  created // 1000000 AS created, strftime(make_timestamp(created), '%Y-%m-%dT%H:%M:%S.%fZ') AS created_time,
  later AS num_attempts, 'Uncategorized' AS bounce_classification, 'unspecified' AS egress_pool,
  'unspecified' AS egress_source, {{address: '192.0.2.1:' || 1024 + n % 60000}} AS source_address,
  NULL AS feedback_report, {{}} AS meta, {{Subject: 'news of the day ' || n}} AS headers, 'ESMTP' AS delivery_protocol,
  'ESMTP' AS reception_protocol, '72b3252f-b500-494a-83f7-8838312b5c88' AS nodeid, md5(one) AS session_id
FROM (SELECT *, (ticks - {epoch}) // 10 AS created,
  make_timestamp(CASE WHEN later IS NULL THEN {late} ELSE (ticks - {epoch}) // 10 + later * 1000000 END) AS moment
  FROM events)
"""


def _logs(database: Database, folder: Path, made: _Made, records: int) -> None:
    """Write segments as KumoMTA does: zstd, JSON lines, read-only when finished."""
    certain = made.total + made.total * 7 // 9 + made.spooled // 10 * 10  # receptions, ends, tries of spooled messages
    others = made.total * 7 // 9
    more = max(0, min(1000, (records - certain) * 1000 // others))
    each = made.total * _RECORDS_A_SEGMENT // records
    for number, begin in enumerate(range(0, made.total, each)):
        query = _RECORDS.format(
            first=made.first_tick,
            step=made.step,
            begin=begin,
            end=min(begin + each, made.total),
            more=more,
            epoch=TICKS_BEFORE_1970,
            late=int((made.newest - timedelta(minutes=5)).timestamp()) * 1_000_000,
        ).replace("{}", "{none: NULL}")
        path = folder / f"{made.newest:%Y%m%d}-{number:06d}.5"
        database.run(f"COPY ({query}) TO {literal(str(path))} (FORMAT json, COMPRESSION zstd)")
        path.chmod(0o400)


def convert_all(logs: Path, ledger: Path) -> None:
    """Given the logs of a restored directory, make the Parquet file of each segment, as the ledger component does."""
    ledger.mkdir(mode=0o700)
    with open_database([logs, ledger]) as database:
        for path in sorted(path for path in logs.rglob("*") if path.is_file()):
            name = str(path.relative_to(logs))
            convert(database, [Segment(path, name, path.stat().st_size)], ledger / parquet_name(name))


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert_all(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1] == "plan":
        from kumodr.cli.main import main

        with open(sys.argv[3], "w", encoding="utf-8") as answer:
            os.dup2(answer.fileno(), 1)
            code = main(["spool", "reconcile", "--spool", f"{sys.argv[2]}/spool", "--json"])
        sys.exit(0 if code == 3 else 1)
    else:
        kept = make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), datetime.fromisoformat(sys.argv[4]))
        os.sync()
        os._exit(0)
