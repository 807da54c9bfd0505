"""The recovered spool and its quarantine as tables.

`messages` has a row for each message: its `key` in hexadecimal digits, its `id` as UUID where it has 16 bytes, what its
metadata says, and the `finding` of vetting. `recipients` has a row for each recipient of those whose metadata is known,
`quarantined` one for each folder of the quarantine.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.ledger.database import Database
from kumodr.reconcile.treatments import Terms
from kumodr.spool import vet
from kumodr.spool.vet import Finding

_LINES = """read_json(?, format = 'newline_delimited', columns = {id: 'UUID', sender: 'VARCHAR', recipient: 'JSON',
  meta: 'STRUCT(queue VARCHAR, tenant VARCHAR, campaign VARCHAR, routing_domain VARCHAR, reception_protocol VARCHAR)',
  first_attempt: 'BIGINT', "count": 'BIGINT', "start": 'BIGINT'})"""

_RECIPIENTS = f"""CREATE TABLE recipients AS
SELECT id, first + generate_subscripts(list, 1) AS number, unnest(list) AS recipient
FROM (SELECT id, coalesce("start", 0) AS first, CASE json_type(recipient) WHEN 'ARRAY'
    THEN from_json(recipient, '["VARCHAR"]') ELSE [recipient ->> '$'] END AS list FROM {_LINES})"""

_SPOOLED = f"""CREATE TABLE spooled AS
SELECT id, sender, first_attempt, coalesce("count", 1) AS "count", meta.tenant AS tenant, meta.campaign AS campaign,
  meta.reception_protocol AS protocol, coalesce(meta.queue, concat(
    CASE WHEN meta.campaign IS NOT NULL THEN concat(meta.campaign, ':', meta.tenant, '@')
      WHEN meta.tenant IS NOT NULL THEN concat(meta.tenant, '@') END,
    CASE WHEN contains(recipient, '@') THEN split_part(recipient, '@', -1) END, '!' || meta.routing_domain)) AS queue
FROM (SELECT * REPLACE (CASE json_type(recipient) WHEN 'ARRAY' THEN recipient ->> '$[0]' ELSE recipient ->> '$' END
    AS recipient) FROM {_LINES} WHERE "start" IS NULL)"""

_FINDINGS = """CREATE TABLE findings AS SELECT id AS key, CASE WHEN length(id) = 32 THEN CAST(id AS UUID) END AS id,
  reason, detail FROM read_json(?, format = 'newline_delimited',
    columns = {id: 'VARCHAR', reason: 'VARCHAR', detail: 'VARCHAR', effect: 'VARCHAR'})"""

_MESSAGES = """CREATE TABLE messages AS
SELECT coalesce(replace(CAST(spooled.id AS VARCHAR), '-', ''), key) AS key, coalesce(spooled.id, findings.id) AS id,
  spooled.id IS NOT NULL AS readable, sender, queue, tenant, campaign, protocol, first_attempt, "count",
  reason AS finding, detail
FROM spooled FULL JOIN (SELECT * FROM findings WHERE key IS NOT NULL) findings ON spooled.id = findings.id"""


@dataclass(frozen=True)
class Counted:
    """How many messages each half holds, and the findings that concern no single message."""

    meta: int
    data: int
    left: tuple[Finding, ...]


def load_spool(database: Database, meta: Path, data: Path, kind: str, terms: Terms) -> Counted:
    """Given both halves, make the tables. Raise SpoolDamaged where the spool cannot be read to its end, and more."""
    from kumodr.spool.snapshot import snapshot

    counts = {"meta": 0, "data": 0, "lines": 0}
    with snapshot(meta, data, kind) as held:
        arguments = {"now": terms.starts.isoformat(), "max_age": terms.max_age.total_seconds()}
        for each in held.examine_shared("reconcile", **arguments, to=str(database.directory)):
            end = next(answer["end"] for answer in each.answers() if "end" in answer)
            counts = {name: count + end[name] for name, count in counts.items()}
    lines = sorted(str(path) for path in database.directory.glob("messages-*.ndjson"))
    findings = sorted(str(path) for path in database.directory.glob("findings-*.ndjson"))
    database.run(_FINDINGS, [findings])
    left = _of_the_whole(database)
    database.run(_RECIPIENTS, [lines])
    database.run(_SPOOLED, [lines])
    database.run(_MESSAGES)
    for path in (*lines, *findings):
        Path(path).unlink()
    return Counted(counts["meta"], counts["data"], left)


def load_quarantine(database: Database, meta: Path) -> None:
    """Given the directory of `meta`, make the table of what its quarantine holds."""
    from kumodr.spool.quarantine import each_listed

    path = database.directory / "quarantined.ndjson"
    with path.open("w") as file:
        for each in each_listed(meta):
            parts = {"has_meta": each.meta_size is not None, "has_body": each.body_size is not None}
            file.write(json.dumps({"key": each.id, "reason": each.reason, **parts}) + "\n")
    database.run(
        """CREATE TABLE quarantined AS SELECT key, CASE WHEN length(key) = 32 THEN CAST(key AS UUID) END AS id,
          any_value(reason) AS reason, bool_or(has_meta AND has_body) AS whole
        FROM read_json(?, format = 'newline_delimited', columns = {key: 'VARCHAR', reason: 'VARCHAR',
          has_meta: 'BOOLEAN', has_body: 'BOOLEAN'}) WHERE reason <> 'trimmed' GROUP BY key""",
        [str(path)],
    )
    path.unlink()


def _of_the_whole(database: Database) -> tuple[Finding, ...]:
    """Return the findings that concern no message. Raise SpoolDamaged where one says that not everything was read."""
    rows = database.rows("SELECT DISTINCT reason, detail FROM findings WHERE key IS NULL ORDER BY ALL LIMIT 1000")
    damage = _damage(rows)
    if damage:
        raise errors.SpoolDamaged(
            f"the spool is damaged, so its messages cannot be told for certain: {'; '.join(damage)}",
            remedy="restore another point, or save what can be read with `kumodr spool export`",
        )
    return tuple(vet.finding(reason, detail) for reason, detail in rows)


def _damage(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{reason}: {detail}" for reason, detail in rows if reason in (vet.DAMAGED, vet.LOG_DAMAGED)]
