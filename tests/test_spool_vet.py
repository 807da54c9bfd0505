"""One test for each thing that KumoMTA would not simply load and send when it starts."""

import json
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spool_samples import NOW, key, meta, restored, write_half, write_spool

from kumodr.spool import startup
from kumodr.spool import vet as reasons
from kumodr.spool.localdisk import path_of
from kumodr.spool.reader import open_spool
from kumodr.spool.vet import Finding, vet

KINDS = ["rocksdb", "localdisk"]
GOOD, BAD = key(number=1), key(number=2)


def found(spool: Path, *, max_age: timedelta = reasons.MAX_AGE) -> list[tuple[str, str | None]]:
    findings = vet(spool / "meta", spool / "data", "auto", NOW, max_age)
    assert all(each.effect for each in findings)
    return [(each.reason, each.id) for each in findings]


def with_one_bad(tmp_path: Path, kind: str, identifier: bytes, raw: bytes) -> Path:
    """A spool of a good message and another one; only the other one may be found."""
    write_spool(tmp_path / "spool", kind, {GOOD: meta(), identifier: raw}, {GOOD: b"g", identifier: b"b"})
    return tmp_path / "spool"


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_spool_has_no_findings(tmp_path: Path, kind: str) -> None:
    batch = meta(recipient=["a@x.test", "b@x.test"], schedule={"expires": "2027-01-01T00:00:00Z"}, later=1)
    assert found(with_one_bad(tmp_path, kind, BAD, batch)) == []


@pytest.mark.parametrize("name", ["rocksdb-killed", "rocksdb-clean-stop", "localdisk-killed"])
def test_captured_spools_have_no_findings_while_they_are_young(unpacked, tmp_path: Path, name: str) -> None:
    assert found(restored(unpacked(name) / "spool", tmp_path / "copy")) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", reasons.UNPARSABLE),
        (meta(schedule={"from_a_newer_version": 1}), reasons.UNPARSABLE),
        (meta(recipient=[]), reasons.NO_QUEUE),
        (meta(meta={"queue": 7}), reasons.NO_QUEUE),
        (meta(schedule={"expires": "2026-11-24T11:59:59Z"}), reasons.EXPIRED),
        (
            meta(schedule={"first_attempt": "2026-12-02T00:00:00Z", "expires": "2026-12-01T00:00:00Z"}),
            reasons.EXPIRED,
        ),
        (meta(meta={"queue": "http://10.0.0.2:8000/.xfer.kumomta.internal"}), reasons.PENDING_TRANSFER),
    ],
)
def test_metadata_that_ends_a_message_or_moves_it(tmp_path: Path, kind: str, raw: bytes, reason: str) -> None:
    assert found(with_one_bad(tmp_path, kind, BAD, raw)) == [(reason, BAD.hex())]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_over_max_age(tmp_path: Path, kind: str) -> None:
    old = key(timedelta(days=7))
    spool = with_one_bad(tmp_path, kind, old, meta())
    assert found(spool) == [(reasons.TOO_OLD, old.hex())]
    assert found(spool, max_age=timedelta(days=8)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_of_the_future(tmp_path: Path, kind: str) -> None:
    future = key(timedelta(seconds=-1))
    assert found(with_one_bad(tmp_path, kind, future, meta())) == [(reasons.FUTURE, future.hex())]


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_without_a_time(tmp_path: Path, kind: str) -> None:
    foreign = uuid.UUID(int=7, version=4).bytes
    assert found(with_one_bad(tmp_path, kind, foreign, meta())) == [(reasons.NO_TIME, foreign.hex())]


def test_a_key_that_is_not_16_bytes(tmp_path: Path) -> None:
    spool = with_one_bad(tmp_path, "rocksdb", b"short", meta())
    assert found(spool) == [(reasons.KEY_LENGTH, b"short".hex())]


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_without_a_body_and_a_body_without_metadata(tmp_path: Path, kind: str) -> None:
    alone = key(number=3)
    write_spool(tmp_path / "spool", kind, {GOOD: meta(), BAD: meta()}, {GOOD: b"g", alone: b"b"})
    assert sorted(found(tmp_path / "spool")) == [(reasons.NO_META, alone.hex()), (reasons.NO_BODY, BAD.hex())]


@pytest.mark.parametrize(("half", "reason"), [("meta", reasons.META_UNREADABLE), ("data", reasons.BODY_UNREADABLE)])
def test_a_file_that_the_owner_of_the_spool_may_not_read(tmp_path: Path, half: str, reason: str) -> None:
    spool = with_one_bad(tmp_path, "localdisk", BAD, meta())
    path = spool / half / path_of(BAD)
    path.chmod(0)
    assert found(spool) == [(reason, BAD.hex())]
    path.chmod(0o600)
    path.parent.chmod(0o600)
    assert (reason, BAD.hex()) in found(spool), "nor one in a folder that the owner may not enter"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_file_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    spool = with_one_bad(tmp_path, "localdisk", BAD, meta())
    os.chown(spool / "meta" / path_of(BAD), 4711, 4711)
    assert found(spool) == [(reasons.META_UNREADABLE, BAD.hex())]


def test_a_file_that_is_no_message(tmp_path: Path) -> None:
    spool = with_one_bad(tmp_path, "localdisk", BAD, meta())
    (spool / "data" / "data" / "notes.txt").write_bytes(b"x")
    assert found(spool) == [(reasons.FOREIGN, None)]


def damaged_of(tmp_path: Path, half: str, damage: str) -> list[Finding]:
    """A spool of 400 messages with one table or log damaged."""
    identifiers = [key(number=number) for number in range(400)]
    spool = tmp_path / "spool"
    bodies = {each: each * 40 for each in identifiers}
    write_spool(spool, "rocksdb", {each: meta(meta={"x": each.hex()}) for each in identifiers}, bodies)
    kind = "*.log" if "log" in damage else "*.sst"
    path = next(path for path in sorted((spool / half).glob(kind)) if path.stat().st_size > 4096)
    if damage.endswith("missing"):
        path.unlink()
    elif damage.endswith("cut"):
        os.truncate(path, path.stat().st_size // 2)
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x40]))
    return [each for each in vet(spool / "meta", spool / "data", "auto", NOW) if each.id is None]


@pytest.mark.parametrize("half", ["meta", "data"])
@pytest.mark.parametrize("damage", ["table missing", "table cut", "table with a wrong bit"])
def test_a_damaged_table(tmp_path: Path, half: str, damage: str) -> None:
    found = damaged_of(tmp_path, half, damage)
    assert [each.reason for each in found] == [reasons.DAMAGED]
    assert found[0].detail.startswith(f"{half}: ")
    assert "kumodr-view" not in found[0].detail


@pytest.mark.parametrize("half", ["meta", "data"])
@pytest.mark.parametrize("damage", ["log with a wrong bit", "log missing"])
def test_a_damaged_write_ahead_log_which_rocksdb_passes_over(tmp_path: Path, half: str, damage: str) -> None:
    found = damaged_of(tmp_path, half, damage)
    assert [each.reason for each in found] == [reasons.LOG_DAMAGED]
    assert found[0].detail.startswith(f"{half}: ")


def test_a_log_that_ends_in_the_middle_of_a_record_is_what_a_killed_server_leaves(tmp_path: Path) -> None:
    newest = key(number=3)
    bodies = {GOOD: b"g", BAD: b"b", newest: b"n"}
    write_spool(tmp_path / "spool", "rocksdb", dict.fromkeys(bodies, meta()), bodies)
    for half in ("meta", "data"):
        (log,) = (tmp_path / "spool" / half).glob("*.log")
        os.truncate(log, log.stat().st_size + 4096)
    assert found(tmp_path / "spool") == []
    for half in ("meta", "data"):
        (log,) = (tmp_path / "spool" / half).glob("*.log")
        os.truncate(log, log.stat().st_size - 4096 - 3)
    assert found(tmp_path / "spool") == []


@pytest.mark.parametrize(("log", "effect"), [(True, "does not start"), (False, "deletes every table")])
def test_a_missing_current(tmp_path: Path, log: bool, effect: str) -> None:
    spool = with_one_bad(tmp_path, "rocksdb", BAD, meta())
    (spool / "meta" / "CURRENT").unlink()
    if not log:
        for path in (spool / "meta").glob("*.log"):
            path.unlink()
    (finding,) = vet(spool / "meta", spool / "data", "auto", NOW)
    assert finding.reason == reasons.NO_CURRENT
    assert effect in finding.effect


@pytest.mark.parametrize(("mode", "closed"), [(0o700, True), (0o2700, True), (0o2770, False), (0o755, False)])
def test_a_directory_closed_to_its_group(tmp_path: Path, mode: int, closed: bool) -> None:
    spool = with_one_bad(tmp_path, "rocksdb", BAD, meta())
    (spool / "data").chmod(mode)
    assert found(spool) == ([(reasons.CLOSED_DIRECTORY, None)] if closed else [])


def test_every_message_is_named_once_by_what_comes_first(tmp_path: Path) -> None:
    old = key(timedelta(days=30))
    write_half(tmp_path / "spool" / "meta", "rocksdb", {old: b"{", GOOD: meta()})
    write_half(tmp_path / "spool" / "data", "rocksdb", {GOOD: b""})
    assert found(tmp_path / "spool") == [(reasons.UNPARSABLE, old.hex())]


DOCUMENTS = st.fixed_dictionaries(
    {
        "sender": st.sampled_from(["", "a@x.test", 'quo"te@x', "ü@x.test", "back\\slash"]),
        "recipient": st.sampled_from(["b@y.test", "", [], ["a@x", "b@y"], 7, "no-domain"]),
        "meta": st.dictionaries(
            st.sampled_from(["queue", "tenant", "campaign", "routing_domain", "other"]),
            st.sampled_from(["", "x", "http://h/.xfer.kumomta.internal", 3, None, {"a": 1}, "tab\t"]),
            max_size=4,
        ),
        "schedule": st.sampled_from([None, {"expires": "2020-01-01T00:00:00Z"}, {"other": 1}]),
    }
)


@settings(max_examples=600, deadline=None)
@given(
    document=DOCUMENTS,
    separators=st.sampled_from([(",", ":"), (", ", ": ")]),
    twice=st.booleans(),
    key=st.binary(min_size=14, max_size=18),
    version=st.sampled_from([1, 1, 1, 4, 6, 7]),
    age=st.sampled_from([-5, -1e-6, 0, 1e-6, 60, 7 * 86400 - 1, 7 * 86400, 8 * 86400]),
)
def test_the_quick_judge_never_passes_what_the_slow_one_finds(
    document: dict, separators: tuple[str, str], twice: bool, key: bytes, version: int, age: float
) -> None:
    now, week = datetime(2026, 11, 24, tzinfo=UTC), timedelta(days=7)
    raw = json.dumps(document, separators=separators, ensure_ascii=False).encode()
    raw = raw.replace(b'{"sender"', b'{"sender":"x","sender"', 1) if twice else raw
    if len(key) == 16:
        ticks = startup.TICKS_BEFORE_1970 + round((now.timestamp() - age) * 1e6) * 10
        head = (ticks & 0xFFFFFFFF).to_bytes(4, "big") + (ticks >> 32 & 0xFFFF).to_bytes(2, "big")
        key = head + (ticks >> 48 & 0xFFF | version << 12).to_bytes(2, "big") + key[8:]
    slow = startup._of_metadata(key, raw, now, week) or startup._of_queue((key, raw))
    if startup._plain_judge(now, week)(key, raw):
        assert slow is None


def test_the_quick_judge_passes_what_kumomta_writes(unpacked) -> None:
    folder = unpacked("rocksdb-killed") / "spool"
    plain = startup._plain_judge(datetime(2026, 11, 24, tzinfo=UTC), timedelta(days=7))
    with open_spool(folder / "meta", folder / "data") as spool:
        judged = [plain(bytes.fromhex(key), raw) for key, raw in spool.entries()]
    assert judged.count(True) >= len(judged) - 6
