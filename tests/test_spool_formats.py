"""Ids and metadata, byte for byte as KumoMTA makes and reads them."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kumodr import errors
from kumodr.spool.identifier import FAR_FUTURE, created, key_of_text, text_of_key
from kumodr.spool.metadata import MetadataUnreadable, QueueUnknown, parse, queue_name

GOOD = {"sender": "a@x.test", "recipient": "b@y.test", "meta": {}, "schedule": None}


def stored(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@given(st.datetimes(datetime(1970, 1, 1), datetime(5000, 1, 1)), st.integers(0, 2**48 - 1))  # noqa: DTZ001
def test_the_time_of_creation_is_read_out_of_a_version_1_id(moment: datetime, node: int) -> None:
    ticks = (moment - datetime(1582, 10, 15)) // timedelta(microseconds=1) * 10  # noqa: DTZ001
    low, mid, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF
    key = uuid.UUID(fields=(low, mid, high | 0x1000, 0x80, 0, node)).bytes
    assert created(key) == moment.replace(tzinfo=UTC)


def test_ids_of_versions_6_and_7_have_a_time_and_others_none() -> None:
    assert created(bytes.fromhex("1ec9414c232a6b00b3c89f6bdeced846")) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    assert created(bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f")) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    assert created(uuid.uuid4().bytes) is None
    assert created(b"short") is None


def test_a_time_before_1970_is_the_far_future_as_in_kumomta() -> None:
    early = uuid.UUID(fields=(0, 0, 0x1000, 0x80, 0, 1)).bytes
    assert created(early) == FAR_FUTURE


@given(st.binary(min_size=16, max_size=16))
def test_an_id_and_its_text_turn_into_each_other(key: bytes) -> None:
    assert key_of_text(text_of_key(key)) == key
    assert key_of_text(str(uuid.UUID(bytes=key)).upper()) == key
    created(key)


@pytest.mark.parametrize("text", ["", "xyz", "0" * 31, "0" * 33, "g" * 32, "../../etc/passwd"])
def test_what_is_no_id_is_refused_by_name(text: str) -> None:
    with pytest.raises(errors.UsageWrong):
        key_of_text(text)


def test_good_metadata_gives_the_envelope() -> None:
    found = parse(stored(recipient=["b@y.test", "c@z.test"], unknown=1, schedule={"expires": "2030-01-01T00:00:00Z"}))
    assert (found.sender, found.recipients) == ("a@x.test", ("b@y.test", "c@z.test"))
    assert found.schedule is not None
    assert found.schedule.expires == datetime(2030, 1, 1, tzinfo=UTC)
    window = {"dow": "Mon,Wed", "tz": "UTC", "start": "09:00:00", "end": "17:00:00"}
    scheduled = parse(stored(schedule=window)).schedule
    assert scheduled is not None
    assert scheduled.window == window


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b'{"sender":"a"', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (stored() + b"x", "not JSON"),
        (b"[]", "not an object"),
        (stored(sender=None), "sender"),
        (stored(recipient=None), "recipient"),
        (stored(recipient=[1]), "recipient"),
        (stored(meta=[]), "meta"),
        (b'{"sender":"a","recipient":"b"}', "meta"),
        (stored(schedule=[]), "schedule"),
        (stored(schedule={"later": 1}), "unknown key 'later'"),
        (stored(schedule={"first_attempt": "tomorrow"}), "first_attempt"),
        (stored(schedule={"expires": "2030-01-01T00:00:00"}), "expires"),
        (stored(schedule={"dow": "Mon"}), "together"),
        (stored(schedule={"dow": "Mo", "tz": "UTC", "start": "09:00:00", "end": "17:00:00"}), "day"),
        (stored(schedule={"dow": "Mon", "tz": "UTC", "start": "25:00:00", "end": "17:00:00"}), "start"),
        (b'{"sender":"a","sender":"a","recipient":"b","meta":{},"schedule":null}', "twice"),
        (stored(meta={"x": float("nan")}), "NaN"),
        (stored(meta={"x": "\ud800"}), "surrogate"),
        (stored(meta={"x": 1}).replace(b"1", b"[" * 200 + b"]" * 200), "deep"),
    ],
)
def test_metadata_that_kumomta_cannot_read_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(MetadataUnreadable, match=reason):
        parse(raw)


def test_brackets_in_text_are_not_depth_and_doubled_keys_inside_meta_are_fine() -> None:
    assert parse(stored(meta={"x": "[{" * 200})).meta["x"].startswith("[{")
    assert parse(b'{"sender":"","recipient":"b","meta":{"k":1,"k":2},"schedule":null}').meta == {"k": 2}


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        parse(raw)
    except MetadataUnreadable as refusal:
        assert str(refusal)


@pytest.mark.parametrize(
    ("meta", "recipient", "queue"),
    [
        ({}, "b@y.test", "y.test"),
        ({"tenant": "t"}, "b@y.test", "t@y.test"),
        ({"tenant": "t", "campaign": "c"}, "b@y.test", "c:t@y.test"),
        ({"campaign": "c"}, "b@y.test", "c:@y.test"),
        ({"routing_domain": "[10.0.0.1]:26"}, "b@y.test", "y.test![10.0.0.1]:26"),
        ({"queue": "mine", "tenant": "t"}, [], "mine"),
        ({"tenant": None}, ["b@y.test", "c@z.test"], "y.test"),
    ],
)
def test_the_queue_is_computed_as_kumomta_does(meta: dict[str, object], recipient: object, queue: str) -> None:
    assert queue_name(parse(stored(meta=meta, recipient=recipient))) == queue


@pytest.mark.parametrize(("meta", "recipient"), [({}, []), ({"queue": 1}, "b@y.test"), ({"tenant": []}, "b@y.test")])
def test_a_queue_that_cannot_be_computed_is_refused(meta: dict[str, object], recipient: object) -> None:
    with pytest.raises(QueueUnknown):
        queue_name(parse(stored(meta=meta, recipient=recipient)))
