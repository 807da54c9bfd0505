"""What was acknowledged and is nowhere: the table `lost`, with a reason for each message and whether it is certain.

A message that the log received, that nothing ended, and that neither the spool nor the quarantine has. Received after
the spool's last copy: lost. Received before it, the spool had let go of it by then, which a spool only does with what
is finished: it is *perhaps* lost, because the log's last records die with a killed server (and some ends are not logged
at all: mail refused after its body, deferred spooling, what KumoMTA removes at start). Left out is what the record
itself shows: the queue `null`, and reports (feedback, bounces from outside) that were read and not passed on.
"""

from datetime import datetime

from kumodr.ledger.database import Database
from kumodr.reconcile.records import micros
from kumodr.reconcile.treatments import GENERATOR_QUEUE

_PRESENT = """CREATE TABLE present AS
  SELECT id FROM messages WHERE id IS NOT NULL AND finding IS DISTINCT FROM 'body without metadata'
  UNION SELECT id FROM quarantined WHERE whole AND id IS NOT NULL UNION SELECT id FROM tombstones"""

_OVER = """CREATE TABLE over AS SELECT id, max(moment) FILTER (type = 'XferOut') AS out,
  bool_or(type <> 'XferOut' OR moment IS NULL) AS for_good FROM records
WHERE type IN ('Expiration', 'AdminBounce', 'XferOut', 'OOB', 'Feedback') OR (type = 'AdminRebind' AND queue = 'null')
GROUP BY id"""

_LOST = f"""CREATE TABLE lost AS
SELECT id, replace(CAST(id AS VARCHAR), '-', '') AS key, received, sender, recipients, tenant, campaign, queue, kind,
  CASE WHEN reason = 'lost body' THEN 'its body is not in the copy; its metadata is'
    WHEN reason = 'lost metadata' THEN 'its metadata is not in the copy; its body is'
    WHEN $until IS NULL THEN 'in the log, and not in the spool'
    WHEN received IS NULL THEN 'in the log without a time, and not in the spool'
    WHEN received > $until THEN 'accepted after the last copy of the spool'
    ELSE 'perhaps finished: it had left the spool before its last copy, and no record says how' END AS why,
  coalesce(reason = 'lost body', false) OR $until IS NULL OR received IS NULL OR received > $until AS certain
FROM (SELECT id, max(moment) AS received, any_value(sender) AS sender,
    list_sort(list(DISTINCT recipient)) AS recipients,
    any_value(tenant) AS tenant, any_value(campaign) AS campaign, any_value(queue) AS queue,
    CASE WHEN any_value(queue) = '{GENERATOR_QUEUE}' THEN 'injection request' ELSE 'mail' END AS kind
  FROM (SELECT id, recipient, sender, tenant, campaign, queue, moment, type FROM records
      WHERE type IN ('Reception', 'XferIn') AND id IS NOT NULL AND queue IS DISTINCT FROM 'null') begun
    ANTI JOIN present USING (id)
    ANTI JOIN (SELECT id, recipient FROM records WHERE type IN ('Delivery', 'Bounce')) ended USING (id, recipient)
    ANTI JOIN over ON begun.id = over.id AND (over.for_good OR begun.type = 'Reception' OR begun.moment IS NULL
      OR over.out >= begun.moment)
  GROUP BY id) gone
LEFT JOIN (SELECT id, any_value(reason) AS reason FROM (SELECT id, reason FROM quarantined WHERE NOT whole
    UNION ALL SELECT id, reason FROM treated WHERE reason IN ('lost body', 'lost metadata'))
  WHERE reason IN ('lost body', 'lost metadata') AND id IS NOT NULL GROUP BY id) parts USING (id)"""

_BODIES = """DELETE FROM present WHERE id IN (SELECT id FROM treated WHERE reason = 'lost body')"""


def find_lost(database: Database, spool_until: datetime | None) -> None:
    """Given the tables of spool, records and treatment, make the table `lost`.

    `spool_until` is the time up to which the spool is complete; None where that is not known: then all is certain.
    """
    until = "NULL::BIGINT" if spool_until is None else str(micros(spool_until))
    for statement in (_PRESENT, _BODIES, _OVER, _LOST):
        database.run(statement.replace("$until", until))
