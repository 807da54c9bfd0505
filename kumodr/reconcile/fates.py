"""What the evidence says of each message of the spool, as the table `treated`: one row and one treatment for each.

The evidence of an end is a record that ends the message, a Delivery or Bounce for each of its recipients, or that the
stream saw the spool let go of it. An XferOut is no end where the message came back later. Nothing else ends a message:
without evidence it stays. Recipients are compared exactly as they are written.

A message whose end is not known is *waiting* where for each recipient left the newest record is a TransientFailure
after which no try was due before the disaster, or where it may not be sent before then at all. Any other may have been
sent after the last evidence: it is uncertain.
"""

from datetime import datetime

from kumodr.ledger.database import Database, literal
from kumodr.ledger.evidence import Evidence, finished_keys
from kumodr.reconcile.records import micros
from kumodr.reconcile.treatments import (
    GENERATOR_QUEUE,
    LOG_HOOK,
    LOG_RECORDS,
    TO_SEND,
    TREATMENT_OF_REASON,
    TRIMMED,
    UNCERTAIN,
    Terms,
)

_SEEN = """CREATE TABLE seen AS SELECT id, recipient, type, max(moment) AS last
FROM (SELECT id, recipient, moment, if(type = 'AdminRebind' AND queue = 'null', 'discarded', type) AS type
  FROM records WHERE type IN ('Reception', 'XferIn', 'Delivery', 'Bounce', 'Expiration', 'AdminBounce', 'XferOut',
    'TransientFailure', 'AdminRebind', 'DeferredInjectionRebind')) events
SEMI JOIN messages USING (id) GROUP BY ALL"""

_UNREADABLE = """INSERT INTO recipients SELECT DISTINCT id, 0, recipient FROM seen
SEMI JOIN (SELECT id FROM messages WHERE NOT readable) unread USING (id)
WHERE type IN ('Reception', 'XferIn') AND recipient IS NOT NULL"""

_CLOSED = """CREATE TABLE closed AS SELECT id, any_value(how) AS how FROM (
  SELECT events.id, events.type || ' in the log' AS how FROM
    (SELECT id, type, max(last) AS last FROM seen
      WHERE type IN ('Expiration', 'AdminBounce', 'XferOut', 'discarded') GROUP BY ALL) events
    LEFT JOIN (SELECT id, max(last) AS last FROM seen WHERE type = 'XferIn' GROUP BY id) back ON events.id = back.id
    WHERE events.type <> 'XferOut' OR back.last IS NULL OR events.last IS NULL OR events.last >= back.last
  UNION ALL SELECT id, 'the spool let go of it' FROM tombstones SEMI JOIN messages USING (id)
) GROUP BY id"""

_ENDED = """CREATE TABLE ended AS SELECT id, recipient, any_value(type) AS type FROM seen
WHERE type IN ('Delivery', 'Bounce') AND recipient IS NOT NULL GROUP BY ALL"""

_FATES = """CREATE TABLE fates AS
WITH tried AS (SELECT id, recipient, max(last) AS last FROM seen WHERE type = 'TransientFailure' GROUP BY ALL),
  moved AS (SELECT id, max(last) AS last FROM seen
    WHERE type IN ('Reception', 'XferIn', 'AdminRebind', 'DeferredInjectionRebind') GROUP BY id)
SELECT recipients.id, count(*) AS total, count(*) FILTER (ended.id IS NULL) AS remaining,
  coalesce(bool_and(tried.last IS NOT NULL AND tried.last >= coalesce(moved.last, tried.last)
    AND tried.last + $interval > $disaster) FILTER (ended.id IS NULL), false) AS waiting,
  min(tried.last) FILTER (ended.id IS NULL) AS tried,
  string_agg(DISTINCT ended.type, ', ' ORDER BY ended.type) AS how
FROM recipients LEFT JOIN ended USING (id, recipient) LEFT JOIN tried USING (id, recipient)
  LEFT JOIN moved ON recipients.id = moved.id GROUP BY recipients.id"""

_TREATED = f"""CREATE TABLE treated AS
SELECT key, judged.id, readable, sender, queue, tenant, campaign, kind, finding, tried, received, whole, total,
  remaining, reason, coalesce(reasons.treatment, judged.treatment) AS treatment,
  coalesce(if(reason = 'finished', coalesce(closed_by, how || ' in the log'), detail), '') AS detail,
  readable AND total = "count" AND remaining < total AND remaining > 0 AND reason IS DISTINCT FROM 'finished' AS trims
FROM (SELECT *, CASE
    WHEN closed_by IS NOT NULL OR (total > 0 AND total = "count" AND remaining = 0) THEN 'finished'
    WHEN finding IN ('metadata without a body', 'body without metadata') AND whole THEN quarantine_reason
    WHEN finding = 'metadata without a body' THEN if(received, 'lost body', 'never acknowledged')
    WHEN finding = 'body without metadata' THEN if(received, 'lost metadata', 'body without metadata')
    ELSE finding END AS reason,
  CASE WHEN kind = 'log record' THEN '{LOG_RECORDS}'
    WHEN waiting OR first_attempt > $disaster THEN if(remaining < total AND total = "count", '{TRIMMED}', '{TO_SEND}')
    ELSE '{UNCERTAIN}' END AS treatment
  FROM (SELECT messages.* REPLACE (if(readable, messages."count", fates.total) AS "count"), closed.how AS closed_by,
      coalesce(fates.total, 0) AS total, coalesce(fates.remaining, 0) AS remaining, fates.how,
      coalesce(fates.waiting, false) AS waiting, fates.tried, begun.id IS NOT NULL AS received,
      coalesce(quarantined.whole, false) AS whole, quarantined.reason AS quarantine_reason,
      CASE WHEN messages.protocol = '{LOG_HOOK}' THEN 'log record'
        WHEN messages.queue = '{GENERATOR_QUEUE}' THEN 'injection request' ELSE 'mail' END AS kind
    FROM messages LEFT JOIN closed ON messages.id = closed.id LEFT JOIN fates ON messages.id = fates.id
      LEFT JOIN (SELECT DISTINCT id FROM seen WHERE type IN ('Reception', 'XferIn')) begun ON messages.id = begun.id
      LEFT JOIN quarantined ON messages.key = quarantined.key)) judged
  LEFT JOIN reasons USING (reason)"""


def treat(database: Database, evidence: Evidence, terms: Terms, disaster: datetime | None) -> None:
    """Given the tables of the spool and of the records, make the table `treated`.

    `disaster` is the last moment at which anything may have been sent; None where there is no evidence of any time.
    """
    load_tombstones(database, evidence)
    pairs = ", ".join(f"({literal(reason)}, {literal(name)})" for reason, name in TREATMENT_OF_REASON.items())
    database.run(f"CREATE TABLE reasons AS SELECT * FROM (VALUES {pairs}) pairs (reason, treatment)")
    for statement in (_SEEN, _UNREADABLE, _CLOSED, _ENDED):
        database.run(statement)
    interval = int(terms.retry_interval.total_seconds() * 1_000_000)
    last = "NULL::BIGINT" if disaster is None else str(micros(disaster))
    database.run(_FATES.replace("$interval", str(interval)).replace("$disaster", last))
    database.run(_TREATED.replace("$disaster", last))


def load_tombstones(database: Database, evidence: Evidence) -> None:
    """Given the evidence, make the table of the ids that the stream saw deleted. Raise FileUnreadable."""
    database.run("CREATE TABLE tombstones (id UUID)")
    if evidence.finished_ids is None:
        return
    path = database.directory / "finished.csv"
    with path.open("w") as file:
        for keys in finished_keys(evidence.finished_ids):
            file.write(keys.hex("\n", 16) + "\n")
    database.run(
        "INSERT INTO tombstones SELECT DISTINCT id FROM read_csv(?, header = false, columns = {id: 'UUID'}, "
        "delim = ',', quote = '', escape = '')",
        [str(path)],
    )
    path.unlink()
