"""What is done with each message of a recovered spool: every treatment has a name, and a reason in the quarantine."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from kumodr.spool import vet

Choice = Literal["send", "hold", "drop"]

TO_SEND = "to_send"
TRIMMED = "trimmed"
LOG_RECORDS = "log_records"
UNCERTAIN = "uncertain"
FINISHED = "finished"
LOST_BODY = "lost_body"
LOST_METADATA = "lost_metadata"
NEVER_ACKNOWLEDGED = "never_acknowledged"

MEANING = {
    TO_SEND: "stay, and are sent when KumoMTA starts",
    TRIMMED: "stay for the recipients that are left; those with an end in the log are taken off",
    LOG_RECORDS: "stay: log records for a hook, which may get them twice",
    UNCERTAIN: "may have been sent between the last evidence and the disaster",
    FINISHED: "are finished, by the log or because the spool let go of them",
    LOST_BODY: "were acknowledged, and their body is not in the copy",
    LOST_METADATA: "were acknowledged, and only their body is in the copy",
    NEVER_ACKNOWLEDGED: "were not acknowledged yet: metadata without a body, and no reception in the log",
    "body_without_metadata": "are bodies that nothing refers to",
    "key_length": "have a key that is not 16 bytes",
    "no_time": "have an id that carries no time",
    "future": "were created in the future",
    "metadata_closed": "have metadata that the spool's owner cannot read",
    "body_closed": "have a body that the spool's owner cannot read",
    "unparsable": "have metadata that cannot be parsed",
    "no_queue": "have no queue",
    "too_old": "are older than max_age",
    "expired": "are past their own expiry time",
    "pending_transfer": "wait for transfer to another node",
}
"""Every treatment, in the order in which they are shown, as what the messages are or do."""

STAYING = (TO_SEND, TRIMMED, LOG_RECORDS)
"""Treatments that leave a message in the spool; uncertain ones stay too where the operator's choice is to send."""

TRIMMED_OFF = "trimmed"
"""The reason under which the quarantine keeps a message's metadata as it was before recipients were taken off."""

HELD = "held"
DROPPED = "dropped"

TREATMENT_OF_REASON = {
    "finished": FINISHED,
    HELD: UNCERTAIN,
    DROPPED: UNCERTAIN,
    "lost body": LOST_BODY,
    "lost metadata": LOST_METADATA,
    "never acknowledged": NEVER_ACKNOWLEDGED,
    vet.NO_META: "body_without_metadata",
    vet.KEY_LENGTH: "key_length",
    vet.NO_TIME: "no_time",
    vet.FUTURE: "future",
    vet.META_UNREADABLE: "metadata_closed",
    vet.BODY_UNREADABLE: "body_closed",
    vet.UNPARSABLE: "unparsable",
    vet.NO_QUEUE: "no_queue",
    vet.TOO_OLD: "too_old",
    vet.EXPIRED: "expired",
    vet.PENDING_TRANSFER: "pending_transfer",
}
"""The treatment of a message by the reason under which it goes into the quarantine."""

GENERATOR_QUEUE = "generator.kumomta.internal"
"""KumoMTA's queue of requests of the injection API that are not turned into messages yet."""

LOG_HOOK = "LogRecord"
"""The reception protocol of messages that KumoMTA makes of log records, for hooks. Their reception is not logged."""


@dataclass(frozen=True)
class Terms:
    """What the operator decides or knows. `disaster` None: the evidence's end.

    `starts` is when KumoMTA will start on the spool; `retry_interval` the shortest time between two tries that the
    policy has; `uncertain` what is done with messages that the evidence cannot decide.
    """

    starts: datetime
    disaster: datetime | None = None
    uncertain: Choice = "send"
    max_age: timedelta = vet.MAX_AGE
    retry_interval: timedelta = timedelta(minutes=20)
