"""What the stand-in does to a spool at start: the rows of facts §2.3 and §14, destructive ones too."""

import itertools
import json
import os
import shutil
import smtplib
import time
from pathlib import Path

import pytest
from servers import wait_for
from standin import sink, stand_in

from kumodr.lab.kumod.ids import TICKS_BEFORE_1970, encode
from kumodr.lab.kumod.store import Half, open_half
from kumodr.spool.reader import open_spool

SEQUENCE = itertools.count(1)
GOOD = {"sender": "a@x.test", "recipient": "b@y.test", "meta": {"reception_protocol": "ESMTP"}, "schedule": None}
BODY = b"Subject: x\r\n\r\nbody\r\n"
MISSING = "127.0.0.1:1"
INJECT = {"envelope_sender": "a@x.test", "recipients": [{"email": "b@y.test"}], "content": "Subject: x\r\n\r\nx\r\n"}


def new_id(age: float = 60) -> bytes:
    ticks = (time.time_ns() - int(age * 1e9)) // 100 + TICKS_BEFORE_1970
    return encode(ticks, next(SEQUENCE), bytes(6))


def opened(folder: Path, kind: str = "RocksDB") -> tuple[Half, Half]:
    return tuple(open_half(str(folder / "spool" / half), kind, None) for half in ("meta", "data"))


def fill(folder: Path, entries: list[tuple[bytes, object, bytes | None]], kind: str = "RocksDB") -> None:
    meta, data = opened(folder, kind)
    for key, document, body in entries:
        if document is not None:
            meta.put(key, document if isinstance(document, bytes) else json.dumps(document).encode())
        if body is not None:
            data.put(key, body)
    meta.close()
    data.close()


def left(folder: Path) -> tuple[set[str], set[str]]:
    with open_spool(folder / "spool" / "meta", folder / "spool" / "data") as spool:
        return set(spool.ids()), set(spool.body_ids())


def ended(folder: Path, **settings: object) -> tuple[list[dict], str]:
    """Start on the folder's spool, stop, and return the log records and what was printed."""
    with stand_in(folder, MISSING, **settings) as running:
        wait_for("the start", running.enumerated)
        assert running.get("/api/check-liveness/v1").text == "OK"
        assert running.stop() == 0
        return running.records(), running.errors


@pytest.mark.parametrize("kind", ["RocksDB", "LocalDisk"])
@pytest.mark.parametrize(
    "document",
    [b"{not json", b"[]", {**GOOD, "meta": 3}, {**GOOD, "schedule": {"other": 1}}, {"sender": "a@x.test", "meta": {}}],
)
def test_what_it_cannot_parse_it_deletes_without_a_record(tmp_path: Path, kind: str, document: object) -> None:
    bad, good = new_id(), new_id()
    fill(tmp_path, [(bad, document, BODY), (good, GOOD, BODY)], kind)
    records, said = ended(tmp_path, kind=kind)
    assert f"Failed to parse metadata for {bad.hex()}" in said
    assert left(tmp_path) == ({good.hex()}, {good.hex()})
    assert bad.hex() not in {each["id"] for each in records}


def test_an_unknown_key_at_the_top_is_accepted(tmp_path: Path) -> None:
    key = new_id()
    fill(tmp_path, [(key, {**GOOD, "new": 1}, BODY)])
    ended(tmp_path)
    assert left(tmp_path)[0] == {key.hex()}


def test_a_local_file_that_it_cannot_read_is_deleted_from_both(tmp_path: Path) -> None:
    bad, good = new_id(), new_id()
    fill(tmp_path, [(bad, GOOD, BODY), (good, GOOD, BODY)], "LocalDisk")
    text = bad.hex()
    path = tmp_path / "spool/meta/data" / text[:2] / text[2:4] / text[4:6] / text[6:8] / text[8:]
    path.unlink()
    path.mkdir()  # root reads every file: a directory cannot be read as one by anybody
    path.rmdir()
    os.symlink("/nonexistent/loop", path)
    path.unlink()
    os.symlink(path.name, path)
    ended(tmp_path, kind="LocalDisk")
    assert left(tmp_path) == ({good.hex()}, {good.hex()})


@pytest.mark.parametrize("document", [{**GOOD, "recipient": []}, {**GOOD, "meta": {"queue": 7}}])
def test_without_a_queue_name_it_expires_and_deletes(tmp_path: Path, document: object) -> None:
    key = new_id()
    fill(tmp_path, [(key, document, BODY)])
    records, said = ended(tmp_path)
    assert "failed to compute queue name" in said
    assert [(each["type"], each["id"], each["response"]["code"]) for each in records] == [
        ("Expiration", key.hex(), 551)
    ]
    assert left(tmp_path) == (set(), set())


def test_what_is_over_age_expires_at_start(tmp_path: Path) -> None:
    old, young = new_id(8 * 86400), new_id()
    fill(tmp_path, [(old, GOOD, BODY), (young, GOOD, BODY)])
    records, _said = ended(tmp_path)
    assert ("Expiration", old.hex()) in {(each["type"], each["id"]) for each in records}
    assert left(tmp_path)[0] == {young.hex()}


def test_what_is_past_its_own_expiry_expires_at_start(tmp_path: Path) -> None:
    key = new_id()
    fill(tmp_path, [(key, {**GOOD, "schedule": {"expires": "2020-01-01T00:00:00Z"}}, BODY)])
    records, _said = ended(tmp_path)
    assert [each["type"] for each in records] == ["Expiration"]
    assert left(tmp_path) == (set(), set())


def test_what_is_from_the_future_is_passed_over(tmp_path: Path) -> None:
    key = new_id(-3600)
    fill(tmp_path, [(key, GOOD, BODY)])
    records, _said = ended(tmp_path)
    assert records == []
    assert left(tmp_path)[0] == {key.hex()}


def test_a_key_of_another_length_ends_the_enumeration_in_silence(tmp_path: Path) -> None:
    first, last = b"\0" * 4 + new_id()[4:], b"\xff" * 4 + new_id()[4:]
    fill(tmp_path, [(first, GOOD, BODY), (b"\x01short", GOOD, BODY), (last, GOOD, BODY)])
    with stand_in(tmp_path, MISSING) as running:
        wait_for("the start", running.enumerated)
        assert "spooled in 1 msgs" in running.errors
        assert running.get("/metrics.json").json()["message_count"]["value"] == 1


def test_an_id_without_a_time_kills_the_process(tmp_path: Path) -> None:
    fill(tmp_path, [(bytes.fromhex("12345678123442348234123456789abc"), GOOD, BODY)])
    with stand_in(tmp_path, MISSING, wait=False) as running:
        assert running.process.wait(20) != 0
        assert "called `Option::unwrap()` on a `None` value" in running.errors


def test_metadata_without_a_body_is_tried_and_kept(tmp_path: Path) -> None:
    key = new_id()
    fill(tmp_path, [(key, GOOD, None)])
    with stand_in(tmp_path, MISSING, max_segment_duration=0.2) as running:
        wait_for("the attempt", lambda: any(each["type"] == "TransientFailure" for each in running.records()))
        (record,) = running.records()
        assert record["response"]["code"] == 400
        assert f"no such key {key.hex()}" in record["response"]["content"]
    assert left(tmp_path)[0] == {key.hex()}


def test_a_body_without_metadata_is_never_looked_at(tmp_path: Path) -> None:
    key = new_id()
    fill(tmp_path, [(key, None, BODY)])
    records, _said = ended(tmp_path)
    assert records == []
    assert left(tmp_path) == (set(), {key.hex()})


def test_everything_is_due_at_once_but_what_is_scheduled(tmp_path: Path) -> None:
    now, later = new_id(), new_id()
    schedule = {"first_attempt": "2030-01-01T00:00:00Z"}
    fill(tmp_path, [(now, GOOD, BODY), (later, {**GOOD, "schedule": schedule}, BODY)])
    with sink(tmp_path / "world") as address, stand_in(tmp_path, address, max_segment_duration=0.2) as running:
        wait_for("the delivery", lambda: any(each["type"] == "Delivery" for each in running.records()))
        assert {each["id"] for each in running.records()} == {now.hex()}
        assert running.stop() == 0
    assert left(tmp_path)[0] == {later.hex()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("rocksdb-killed", "RocksDB"), ("rocksdb-killed-many-flushes", "RocksDB"), ("localdisk-killed", "LocalDisk")],
)
def test_it_loads_the_spool_of_a_real_server(name: str, kind: str, unpacked, fixtures_directory: Path) -> None:
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    folder = unpacked(name)
    shutil.rmtree(folder / "logs")
    with stand_in(folder, MISSING, kind=kind, max_age=10**9, clock_offset=86400) as running:
        wait_for("the start", running.enumerated)
        assert f"spooled in {len(expected['meta_ids'])} msgs" in running.errors
        count = running.get("/metrics.json").json()["message_count"]["value"]
        assert count == len(expected["meta_ids"])
        assert running.stop() == 0
    assert left(folder) == (set(expected["meta_ids"]), set(expected["data_ids"]))


def test_a_clean_stop_leaves_the_newest_mail_in_the_log_only(tmp_path: Path) -> None:
    with stand_in(tmp_path, MISSING) as running:
        content = {"envelope_sender": "a@x.test", "recipients": [{"email": "b@y.test"}], "content": BODY.decode()}
        assert running.post("/api/inject/v1", content).json()["success_count"] == 1
        assert running.stop() == 0
    meta = tmp_path / "spool" / "meta"
    assert not list(meta.glob("*.sst"))
    assert sum(path.stat().st_size for path in meta.glob("*.log")) > 0
    assert not (meta / "rocksdict-config.json").exists()
    assert len(left(tmp_path)[0]) == 1


def test_damage_in_a_table_of_meta_hides_messages_and_stops_the_mail(tmp_path: Path) -> None:
    ids = sorted(new_id(60 + number) for number in range(600))
    fill(tmp_path, [(key, GOOD, BODY) for key in ids])
    meta, data = opened(tmp_path)
    meta.compact()
    meta.close()
    data.close()
    table = max((tmp_path / "spool" / "meta").glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with stand_in(tmp_path, MISSING) as running:
        answer = running.get("/api/check-liveness/v1")
        assert (answer.status_code, answer.text) == (503, "the spool is not accepting writes")
        read = int(running.errors.partition("spooled in ")[2].split()[0])
        assert 0 < read < len(ids)
        assert running.post("/api/inject/v1", INJECT).status_code == 503
        with smtplib.SMTP(*running.smtp.split(":")) as client:
            client.ehlo()
            client.mail("a@x.test")
            code, text = client.rcpt("b@y.test")
        assert (code, text) == (421, b"4.3.2 the spool is not accepting writes")


def test_a_killed_server_loses_the_end_of_its_log_and_the_next_start_closes_it(tmp_path: Path) -> None:
    with sink(tmp_path / "sink") as address, stand_in(tmp_path, address, max_segment_duration=None) as running:
        for _ in range(200):
            assert running.post("/api/inject/v1", INJECT).json()["success_count"] == 1
        index = tmp_path / "sink" / "index.jsonl"
        wait_for("every delivery", lambda: len(index.read_bytes().splitlines()) == 200)
        (segment,) = (tmp_path / "logs").iterdir()
        wait_for("the first step of the log", lambda: segment.stat().st_size > 0)
        running.process.kill()
        running.process.wait()
        found = running.records()
    assert 0 < sum(each["type"] == "Delivery" for each in found) < 200  # given out in steps of 128 KiB
    assert segment.stat().st_mode & 0o222
    assert left(tmp_path) == (set(), set())  # the spool knows what the log lost
    with stand_in(tmp_path, MISSING):
        assert not segment.stat().st_mode & 0o222
        assert segment.read_bytes()


def test_a_suspension_does_not_outlive_the_process(tmp_path: Path) -> None:
    with stand_in(tmp_path, MISSING) as running:
        assert running.post("/api/admin/suspend/v1", {"domain": "y.test", "reason": "t"}).status_code == 200
        assert len(running.get("/api/admin/suspend/v1").json()) == 1
        assert running.stop() == 0
    with stand_in(tmp_path, MISSING) as running:
        assert running.get("/api/admin/suspend/v1").json() == []
