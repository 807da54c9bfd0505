"""A recovered spool that holds a message for every treatment: its parts, its records, and what must be decided."""

from datetime import timedelta
from pathlib import Path

from reconcile_samples import UNTIL, contents, record
from spool_samples import NOW, key, meta

from kumodr.spool.metadata import parse

RECENT, LONG_AGO = UNTIL - timedelta(seconds=1), NOW - timedelta(hours=3)
THREE = ["a@b.test", "b@b.test", "c@b.test"]
(
    WAITING, DELIVERED, EXPIRED, BOUNCED_BY_HAND, MOVED, RETURNED, TOMBSTONE, TWO_LEFT, ONE_LEFT, ALL_ENDED, NEW,
    UNLOGGED, TRIED_LONG_AGO, LATER, REBOUND, HOOK, REQUEST, REQUEST_DONE, BROKEN, PENDING, NO_QUEUE, TRIMMED_AND_NEW,
    BODY_LOST, BODY_UNKNOWN, BODY_DONE, META_LOST, META_UNKNOWN, DISCARDED, OTHER_CASE,
) = (key(timedelta(hours=1), number) for number in range(29))  # fmt: skip
OLD, FUTURE = key(timedelta(days=30), 1), key(timedelta(days=-1), 1)

META = {
    **dict.fromkeys(
        (WAITING, DELIVERED, EXPIRED, BOUNCED_BY_HAND, MOVED, RETURNED, TOMBSTONE, NEW, UNLOGGED, TRIED_LONG_AGO,
         REBOUND, OLD, FUTURE, BODY_LOST, BODY_UNKNOWN, BODY_DONE, DISCARDED, OTHER_CASE),
        meta(),
    ),
    **dict.fromkeys((TWO_LEFT, ONE_LEFT, ALL_ENDED, TRIMMED_AND_NEW), meta(recipient=THREE)),
    LATER: meta(schedule={"first_attempt": "2030-01-01T00:00:00Z"}),
    HOOK: meta(recipient="hook@log.test", meta={"reception_protocol": "LogRecord", "queue": "hook"}),
    **dict.fromkeys((REQUEST, REQUEST_DONE), meta(meta={"queue": "generator.kumomta.internal"})),
    BROKEN: b"{\xff",
    PENDING: meta(meta={"queue": "http://old.test:8000/.xfer.kumomta.internal"}),
    NO_QUEUE: meta(recipient=[]),
}  # fmt: skip
DATA = {each: b"body of " + each for each in (*META, META_LOST, META_UNKNOWN)}
for each in (BODY_LOST, BODY_UNKNOWN, BODY_DONE):
    del DATA[each]

LOST, PERHAPS, NULL, REPORT, GONE_BOUNCE = (key(timedelta(hours=2), number) for number in range(5))
AFTER = UNTIL + timedelta(minutes=1)

RECORDS = [
    *(record("Reception", each, at=LONG_AGO) for each in META if each not in (UNLOGGED, HOOK, BODY_UNKNOWN, TWO_LEFT)),
    record("Reception", TWO_LEFT, THREE, LONG_AGO),
    *(record("TransientFailure", each, at=RECENT) for each in (WAITING, REBOUND, OTHER_CASE)),
    record("Delivery", DELIVERED), record("Expiration", EXPIRED), record("AdminBounce", BOUNCED_BY_HAND),
    record("XferOut", MOVED, response={"code": 250, "content": "new id is " + "a" * 32}),
    record("XferOut", RETURNED, at=LONG_AGO), record("XferIn", RETURNED, at=LONG_AGO + timedelta(minutes=1)),
    record("TransientFailure", RETURNED, at=RECENT),
    record("Delivery", TWO_LEFT, ["b@b.test"]), record("TransientFailure", TWO_LEFT, ["a@b.test", "c@b.test"], RECENT),
    record("Delivery", ONE_LEFT, ["a@b.test"]), record("Bounce", ONE_LEFT, "c@b.test"),
    record("TransientFailure", ONE_LEFT, "b@b.test", RECENT),
    record("Delivery", ALL_ENDED, ["c@b.test", "a@b.test"]), record("Bounce", ALL_ENDED, ["b@b.test"]),
    record("Delivery", TRIMMED_AND_NEW, "a@b.test"),
    record("TransientFailure", TRIED_LONG_AGO, at=LONG_AGO),
    record("AdminRebind", REBOUND, at=UNTIL), record("AdminRebind", DISCARDED, queue="null"),
    record("Delivery", OTHER_CASE, "R@b.test"),
    record("Delivery", REQUEST_DONE, delivery_protocol="HttpInjectionGenerator"),
    record("Delivery", BODY_DONE), record("Reception", META_LOST, at=AFTER),
    record("Reception", LOST, at=AFTER, sender="=cmd|x", meta={"tenant": "acme", "campaign": "spring"}),
    record("Reception", PERHAPS, at=LONG_AGO, queue="spring:acme@b.test"),
    record("Reception", NULL, at=AFTER, queue="null"),
    record("Reception", REPORT, at=AFTER), record("Feedback", REPORT, at=AFTER),
    record("Reception", GONE_BOUNCE, at=AFTER), record("Bounce", GONE_BOUNCE, at=AFTER),
    record("Rejection", b"", at=AFTER), record("SomethingNew", WAITING, at=RECENT),
]  # fmt: skip

EXPECTED = {
    "to_send": {WAITING, RETURNED, LATER, OTHER_CASE},
    "trimmed": {TWO_LEFT, ONE_LEFT},
    "log_records": {HOOK},
    "uncertain": {NEW, UNLOGGED, TRIED_LONG_AGO, REBOUND, REQUEST, TRIMMED_AND_NEW},
    "finished": {
        DELIVERED, EXPIRED, BOUNCED_BY_HAND, MOVED, TOMBSTONE, ALL_ENDED, REQUEST_DONE, BODY_DONE, DISCARDED
    },
    "lost_body": {BODY_LOST},
    "never_acknowledged": {BODY_UNKNOWN},
    "lost_metadata": {META_LOST},
    "body_without_metadata": {META_UNKNOWN},
    "too_old": {OLD},
    "future": {FUTURE},
    "unparsable": {BROKEN},
    "pending_transfer": {PENDING},
    "no_queue": {NO_QUEUE},
}  # fmt: skip


def ids(keys: set[bytes]) -> set[str]:
    return {each.hex() for each in keys}


def recipients_of(spool: Path, each: bytes) -> tuple[str, ...]:
    return parse(contents(spool)[0][each.hex()]).recipients
