"""Explain messages that are in one half of a spool only, by what the delivery log says became of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from kumodr.ledger.fates import Fate
from kumodr.spool.census import SpoolCensus

FINISHED = "finished"
ACCEPTED_LATER = "accepted later"
OPEN = "received, end not in the log"
UNKNOWN = "never acknowledged, or finished and not in the log"


@dataclass(frozen=True)
class Explained:
    """One message that is in one half only: `part` is the half that it is in, `why` one of the words above."""

    id: str
    part: str
    why: str
    evidence: str


def explain(census: SpoolCensus, fates: Mapping[str, Fate], taken: datetime | None = None) -> tuple[Explained, ...]:
    """Given a census, the fates of its ids and when it was taken, return what is known of each id that it lists.

    Metadata without a body: KumoMTA removes the body first, so the message is finished; or it wrote the metadata first
    and had not acknowledged the message. A body without metadata: the body is written first, and accepted after
    `taken`. OPEN is the one to look at: the log may have lost its tail, or the body is lost.
    """
    found = [_explained(each, "meta", fates.get(each), None) for each in census.without_body]
    found += [_explained(each, "data", fates.get(each), taken) for each in census.without_meta]
    return tuple(found)


def _explained(identifier: str, part: str, fate: Fate | None, taken: datetime | None) -> Explained:
    if fate is None:
        return Explained(identifier, part, UNKNOWN, "not in the log")
    if fate.finished:
        how = fate.ended_by or ", ".join(sorted(set(fate.ended.values())))
        return Explained(identifier, part, FINISHED, f"{how} in the log")
    if fate.received is not None and taken is not None and fate.received >= taken:
        return Explained(identifier, part, ACCEPTED_LATER, f"received {fate.received.isoformat()}")
    return Explained(identifier, part, OPEN, f"{len(fate.left)} of {len(fate.recipients)} recipients without an end")
