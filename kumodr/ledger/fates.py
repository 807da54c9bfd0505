"""What became of each message, as far as the delivery log says.

The log is evidence, not proof of the contrary: a killed server loses the last records, some types can be switched off,
and what KumoMTA deletes at start is not logged. A message without an end in the log is unknown, not undelivered.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from kumodr.ledger.records import Record

BEGINS = frozenset(("Reception", "XferIn"))
ENDS_FOR_RECIPIENTS = frozenset(("Delivery", "Bounce"))
"""Ends for the recipients that the record lists."""

ENDS = frozenset(("Expiration", "AdminBounce", "XferOut"))
"""Ends for every recipient that is left. XferOut: here; the message goes on at another node under a new id."""

GENERATOR = "HttpInjectionGenerator"
"""The delivery protocol of a request of the injection API when it was turned into messages, which have new ids."""


@dataclass
class Fate:
    """One message in the log. `left` are recipients received and not ended; empty where nothing says who there was."""

    id: str
    received: datetime | None = None
    is_received: bool = False
    recipients: tuple[str, ...] = ()
    ended: dict[str, str] = field(default_factory=dict[str, str])
    """The type of the record that ended it, by recipient."""
    ended_by: str | None = None
    """The type of the record that ended all that was left."""
    moved_to: str | None = None
    """The message's id at the node that it was transferred to."""
    is_generator: bool = False
    last: datetime | None = None

    @property
    def left(self) -> tuple[str, ...]:
        """The recipients whose end is not in the log."""
        if self.ended_by is not None:
            return ()
        return tuple(each for each in self.recipients if each not in self.ended)

    @property
    def finished(self) -> bool:
        """Whether the log says that nothing is left to do: for every recipient, where the reception is logged.

        Without a logged reception an end for some recipients is taken for the end of all: one message has one
        recipient unless the policy batches, and then `left_of` with the spool's own list is the question to ask.
        """
        return self.ended_by is not None or (bool(self.ended) and not self.left)

    def left_of(self, recipients: Iterable[str]) -> tuple[str, ...]:
        """Given a message's recipients in the spool, return those whose end is not in the log."""
        return () if self.ended_by is not None else tuple(each for each in recipients if each not in self.ended)


def fates(records: Iterable[Record], only: Container[str] | None = None) -> dict[str, Fate]:
    """Given records in any order, return the fate of each message by id; with `only`, of those messages."""
    found: dict[str, Fate] = {}
    for record in records:
        if not record.id or (only is not None and record.id not in only):
            continue
        if record.type in BEGINS or record.type in ENDS_FOR_RECIPIENTS or record.type in ENDS:
            _note(found.setdefault(record.id, Fate(record.id)), record)
    return found


def _note(fate: Fate, record: Record) -> None:
    if record.event_time is not None and (fate.last is None or record.event_time > fate.last):
        fate.last = record.event_time
    if record.type in BEGINS:
        fate.is_received = True
        fate.received = record.event_time
        fate.recipients = record.recipients
    elif record.type in ENDS_FOR_RECIPIENTS:
        fate.ended.update(dict.fromkeys(record.recipients, record.type))
        fate.is_generator = fate.is_generator or record.delivery_protocol == GENERATOR
    else:
        fate.ended_by = record.type
        if record.type == "XferOut":
            fate.moved_to = record.content.rpartition("new id is ")[2] or None
