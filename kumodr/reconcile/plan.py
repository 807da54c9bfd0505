"""Reconcile a recovered spool with the evidence: what would be done with each message, and what is missing.

Offline, before a mail server first starts on the spool. Only looks; `apply.py` does it.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kumodr.ledger.database import Database, open_database
from kumodr.ledger.evidence import Evidence
from kumodr.reconcile.fates import treat
from kumodr.reconcile.lost import find_lost
from kumodr.reconcile.records import Logged, load_records, moment_of
from kumodr.reconcile.spooled import Counted, load_quarantine, load_spool
from kumodr.reconcile.treatments import DROPPED, HELD, MEANING, UNCERTAIN, Terms
from kumodr.source import Progress
from kumodr.spool.identifier import created
from kumodr.spool.vet import EFFECTS, Finding


@dataclass(frozen=True)
class Uncertain:
    """A message that may have been sent already: its recipients left, and why it cannot be decided."""

    id: str
    created: datetime | None
    sender: str
    recipients: tuple[str, ...]
    tenant: str
    campaign: str
    queue: str
    kind: str
    why: str


@dataclass(frozen=True)
class Lost:
    """A message that was acknowledged and is missing; `certain` is false where it was perhaps finished."""

    id: str
    received: datetime | None
    sender: str
    recipients: tuple[str, ...]
    tenant: str
    campaign: str
    queue: str
    kind: str
    why: str
    certain: bool


@dataclass(frozen=True)
class Trim:
    """A message from which recipients are taken off: those that stay, in their order."""

    id: str
    recipients: tuple[str, ...]


class Plan:
    """What would be done. Use through `reconcile`; what it yields is read from disk as it is asked for."""

    def __init__(
        self,
        database: Database,
        evidence: Evidence,
        terms: Terms,
        spool: Counted,
        logs: Logged,
        disaster: datetime | None,
    ) -> None:
        self.evidence = evidence
        self.terms = terms
        self.spool = spool
        self.logs = logs
        self.disaster = disaster
        """The last moment at which anything may have been sent, as far as was said or is known."""
        self._database = database

    def counts(self) -> Mapping[str, int]:
        """Return how many messages get each treatment, for every treatment that there is."""
        found = dict(self._database.rows("SELECT treatment, count(*) FROM treated GROUP BY 1"))
        return {name: int(found.get(name, 0)) for name in MEANING}

    def ids(self, treatment: str) -> Iterator[str]:
        """Given a treatment, yield the ids of its messages in order."""
        query = "SELECT key FROM treated WHERE treatment = ? ORDER BY key"
        return (key for (key,) in self._database.each(query, [treatment]))

    @property
    def trim_count(self) -> int:
        """How many messages have recipients with an end, whatever else is done with them."""
        return int(self._database.value("SELECT count(*) FROM treated WHERE trims"))

    def trims(self) -> Iterator[Trim]:
        """Yield the messages from which recipients are taken off."""
        for key, recipients in self._database.each(_TRIMS):
            yield Trim(key, tuple(recipients))

    @property
    def move_count(self) -> int:
        """How many messages go into the quarantine."""
        return int(self._database.value(f"SELECT count(*) FROM treated WHERE {self._moves}"))

    def moves(self) -> Iterator[Finding]:
        """Yield the messages that go into the quarantine, each with the reason that is kept with it."""
        reason = HELD if self.terms.uncertain == "hold" else DROPPED
        query = f"SELECT coalesce(reason, ?), detail, key FROM treated WHERE {self._moves} ORDER BY key"
        for why, detail, key in self._database.each(query, [reason]):
            yield Finding(why, EFFECTS.get(why, ""), detail, key)

    @property
    def _moves(self) -> str:
        """Messages with a reason, and the uncertain ones where they are not to be sent."""
        return (
            "reason IS NOT NULL"
            if self.terms.uncertain == "send"
            else f"(reason IS NOT NULL OR treatment = '{UNCERTAIN}')"
        )

    def staying_in_quarantine(self) -> Iterator[str]:
        """Yield the ids of what stays in the spool although the quarantine has it, from a run that was killed."""
        query = f"SELECT key FROM treated WHERE whole AND NOT ({self._moves})"
        return (key for (key,) in self._database.each(query))

    def uncertain(self) -> Iterator[Uncertain]:
        """Yield the messages that the evidence cannot decide, in order of id."""
        for key, sender, recipients, tenant, campaign, queue, kind, received, tried in self._database.each(_UNCERTAIN):
            last = moment_of(tried)
            if last is not None:
                why = f"last tried at {last:%Y-%m-%d %H:%M:%S} UTC; the next try may have been before the disaster"
            else:
                why = "received, and no try is in the log" if received else "not in the log"
            if kind != "mail":
                why += "; sending it makes all messages of an injection request, perhaps again"
            yield Uncertain(
                id=key,
                created=created(bytes.fromhex(key)),
                sender=sender or "",
                recipients=tuple(recipients or ()),
                tenant=tenant or "",
                campaign=campaign or "",
                queue=queue or "",
                kind=kind,
                why=why,
            )

    def lost_counts(self) -> tuple[int, int]:
        """Return how many messages are lost, and how many more perhaps."""
        certain, perhaps = self._database.rows(
            "SELECT count(*) FILTER (certain), count(*) FILTER (NOT certain) FROM lost"
        )[0]
        return int(certain), int(perhaps)

    def lost_ids(self, *, certain: bool) -> Iterator[str]:
        """Yield the ids of the messages that are lost, or perhaps lost, in order of id."""
        query = "SELECT key FROM lost WHERE certain = ? ORDER BY key"
        return (key for (key,) in self._database.each(query, [certain]))

    def lost(self) -> Iterator[Lost]:
        """Yield the messages that are missing: the certain ones first, by the time of their reception."""
        for row in self._database.each(_LOST):
            key, received, sender, recipients, tenant, campaign, queue, kind, why, certain = row
            yield Lost(
                id=key,
                received=moment_of(received),
                sender=sender or "",
                recipients=tuple(each for each in recipients or () if each),
                tenant=tenant or "",
                campaign=campaign or "",
                queue=queue or "",
                kind=kind,
                why=why,
                certain=certain,
            )

    def lost_by(self, what: str) -> list[tuple[str, int, int]]:
        """Given "tenant", "campaign" or "domain", return each with how many are lost, and how many more perhaps."""
        return [(str(name), int(lost), int(perhaps)) for name, lost, perhaps in self._database.rows(_LOST_BY[what])]


_OF_LEFT = """LEFT JOIN (SELECT id, list(recipient ORDER BY number) AS recipients FROM recipients
  ANTI JOIN ended USING (id, recipient) GROUP BY id) remaining USING (id)"""
_TRIMS = f"SELECT key, recipients FROM (SELECT key, id FROM treated WHERE trims) trimmed {_OF_LEFT} ORDER BY key"
_UNCERTAIN = f"""SELECT key, sender, recipients, tenant, campaign, queue, kind, received, tried
FROM (SELECT * FROM treated WHERE treatment = '{UNCERTAIN}') uncertain {_OF_LEFT} ORDER BY key"""
_LOST = """SELECT key, received, sender, recipients, tenant, campaign, queue, kind, why, certain FROM lost
ORDER BY certain DESC, received, key"""
_SHARE = "count(*) FILTER (certain), count(*) FILTER (NOT certain)"
_LOST_BY = {
    "tenant": f"SELECT coalesce(tenant, ''), {_SHARE} FROM lost GROUP BY 1 ORDER BY 2 DESC, 3 DESC, 1",
    "campaign": f"SELECT coalesce(campaign, ''), {_SHARE} FROM lost GROUP BY 1 ORDER BY 2 DESC, 3 DESC, 1",
    "domain": f"""SELECT lower(split_part(coalesce(recipient, ''), '@', -1)), {_SHARE}
      FROM (SELECT DISTINCT unnest(recipients) AS recipient, key, certain FROM lost)
      GROUP BY 1 ORDER BY 2 DESC, 3 DESC, 1""",
}


@contextmanager
def reconcile(
    meta: Path, data: Path, kind: str, evidence: Evidence, terms: Terms, progress: Progress
) -> Generator[Plan]:
    """Given both halves of a spool and the evidence, give the plan. Nothing is changed.

    Raise SpoolDamaged where not every message can be told, SpoolMissing, LogUnreadable, FileUnreadable, DiskFull.
    """
    readable = [*evidence.logs, *([evidence.ledger] if evidence.ledger else [])]
    with open_database(readable) as database:
        spool = load_spool(database, meta, data, kind, terms)
        load_quarantine(database, meta)
        progress("reading delivery logs", 0, 0)
        logs = load_records(database, evidence, progress)
        known = (terms.disaster, evidence.spool_until, evidence.logs_until, logs.until)
        disaster = terms.disaster or max((each for each in known if each is not None), default=None)
        progress("comparing", 0, 0)
        treat(database, evidence, terms, disaster)
        find_lost(database, evidence.spool_until)
        yield Plan(database, evidence, terms, spool, logs, disaster)
