"""Each treatment of a recovered spool, planned, done, put back: both kinds of spool, by hand and of a real server."""

import csv
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from reconcile_samples import DISASTER, UNTIL, contents, planned, record, sets_of, site, write_log
from reconciled_spool import (
    AFTER,
    BODY_LOST,
    BROKEN,
    DATA,
    DELIVERED,
    EXPECTED,
    LONG_AGO,
    LOST,
    META,
    META_LOST,
    NEW,
    ONE_LEFT,
    PERHAPS,
    RECENT,
    RECORDS,
    REQUEST,
    TOMBSTONE,
    TRIED_LONG_AGO,
    TRIMMED_AND_NEW,
    TWO_LEFT,
    UNLOGGED,
    WAITING,
    ids,
    recipients_of,
)
from spool_samples import NOW, everything, key, meta

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.ledger.convert import Segment, convert
from kumodr.ledger.database import open_database
from kumodr.ledger.evidence import find_evidence
from kumodr.reconcile.apply import apply
from kumodr.reconcile.treatments import MEANING, TREATMENT_OF_REASON
from kumodr.reconcile.trim import with_recipients
from kumodr.spool import quarantine, vet

KINDS = ["rocksdb", "localdisk"]
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(params=KINDS)
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A restored spool with one message or more for each treatment."""
    return site(tmp_path / "r", request.param, META, DATA, RECORDS, [TOMBSTONE, key(timedelta(hours=9), 9)])


def do(spool: Path, **terms: object) -> tuple[int, int]:
    with planned(spool, **terms) as plan:
        done = apply(plan, spool / "meta", spool / "data", "auto", lambda *_: None)
    return done.moved, done.trimmed


def test_every_message_gets_its_one_treatment_and_nothing_is_changed(spool: Path) -> None:
    before = everything(spool)
    with planned(spool) as plan:
        found = sets_of(plan)
        assert found == {name: ids(keys) for name, keys in EXPECTED.items()}
        assert set().union(*found.values()) == ids({*META, *DATA})
        assert sum(map(len, found.values())) == len({*META, *DATA})
        assert {each.id: each.recipients for each in plan.trims()} == {
            TWO_LEFT.hex(): ("a@b.test", "c@b.test"),
            ONE_LEFT.hex(): ("b@b.test",),
            TRIMMED_AND_NEW.hex(): ("b@b.test", "c@b.test"),
        }
        assert list(plan.lost_ids(certain=True)) == sorted(ids({LOST, META_LOST, BODY_LOST}))
        assert list(plan.lost_ids(certain=False)) == [PERHAPS.hex()]
        assert (plan.spool.meta, plan.spool.data, plan.logs.problems) == (len(META), len(DATA), ())
    assert everything(spool) == before


def test_every_reason_has_a_treatment_with_a_meaning() -> None:
    assert set(TREATMENT_OF_REASON.values()) <= set(MEANING)
    of_vetting = set(vet.EFFECTS) - {vet.FOREIGN, vet.DAMAGED, vet.LOG_DAMAGED, vet.CLOSED_DIRECTORY, vet.NO_BODY}
    assert of_vetting <= set(TREATMENT_OF_REASON)


def test_lists_say_whose_it_is_and_why(spool: Path) -> None:
    with planned(spool) as plan:
        lost = {each.id: each for each in plan.lost()}
        uncertain = {each.id: each for each in plan.uncertain()}
        assert plan.lost_by("tenant") == [("t", 2, 0), ("acme", 1, 1)]
        assert {name: (sure, more) for name, sure, more in plan.lost_by("campaign")}["spring"] == (1, 1)
        assert plan.lost_by("domain") == [("b.test", 3, 1)]
    one = lost[LOST.hex()]
    assert (one.tenant, one.campaign, one.recipients, one.received, one.certain) == (
        "acme", "spring", ("r@b.test",), AFTER, True
    )  # fmt: skip
    assert (lost[PERHAPS.hex()].tenant, lost[PERHAPS.hex()].campaign) == ("acme", "spring")
    assert "perhaps" in lost[PERHAPS.hex()].why
    assert "body" in lost[BODY_LOST.hex()].why
    assert "metadata" in lost[META_LOST.hex()].why
    assert uncertain[TRIMMED_AND_NEW.hex()].recipients == ("b@b.test", "c@b.test")
    assert "injection request" in uncertain[REQUEST.hex()].why
    assert "not in the log" in uncertain[UNLOGGED.hex()].why
    assert "last tried" in uncertain[TRIED_LONG_AGO.hex()].why
    assert uncertain[NEW.hex()].queue == "t@b.test"


@pytest.mark.parametrize("choice", ["send", "hold", "drop"])
def test_it_is_done_and_all_of_it_is_put_back(spool: Path, choice: str) -> None:
    before = contents(spool)
    taken = {name: keys for name, keys in EXPECTED.items() if name not in ("to_send", "trimmed", "log_records")}
    if choice == "send":
        del taken["uncertain"]
    gone = set().union(*taken.values())
    assert do(spool, uncertain=choice) == (len(gone), 3)
    metadata, bodies = contents(spool)
    assert set(metadata) == ids(set(META) - gone)
    assert set(bodies) == ids(set(DATA) - gone)
    assert recipients_of(spool, TWO_LEFT) == ("a@b.test", "c@b.test")
    assert json.loads(metadata[ONE_LEFT.hex()])["recipient"] == "b@b.test"
    reasons = {each.id: each.reason for each in quarantine.listed(spool / "meta") if each.replacement is None}
    assert reasons[DELIVERED.hex()] == "finished"
    assert reasons.get(NEW.hex()) == {"send": None, "hold": "held", "drop": "dropped"}[choice]
    assert reasons[BROKEN.hex()] == vet.UNPARSABLE
    with planned(spool, uncertain=choice) as again:
        assert again.move_count == again.trim_count == 0
        assert {*again.lost_ids(certain=True), *again.lost_ids(certain=False)} == ids(
            {LOST, META_LOST, BODY_LOST, PERHAPS}
        )
        assert again.lost_counts() == (3, 1)
    held = {each.id for each in quarantine.each_listed(spool / "meta")}
    quarantine.put_back(sorted(held), spool / "meta", spool / "data")
    assert contents(spool) == before
    assert quarantine.listed(spool / "meta") == ()


def test_a_held_message_comes_back_without_the_recipients_that_have_theirs(spool: Path) -> None:
    do(spool, uncertain="hold")
    assert TRIMMED_AND_NEW.hex() not in contents(spool)[0]
    held = [each.id for each in quarantine.each_listed(spool / "meta") if each.reason == "held"]
    quarantine.put_back(held, spool / "meta", spool / "data", reason="held")
    assert recipients_of(spool, TRIMMED_AND_NEW) == ("b@b.test", "c@b.test")
    assert contents(spool)[1][TRIMMED_AND_NEW.hex()] == DATA[TRIMMED_AND_NEW]
    quarantine.put_back([TRIMMED_AND_NEW.hex()], spool / "meta", spool / "data")
    assert contents(spool)[0][TRIMMED_AND_NEW.hex()] == META[TRIMMED_AND_NEW]


def test_metadata_is_not_put_back_over_what_changed_since_nor_without_its_message(spool: Path) -> None:
    do(spool, uncertain="hold")
    with pytest.raises(errors.MessageMissing, match="put the message itself back first"):
        quarantine.put_back([TRIMMED_AND_NEW.hex()], spool / "meta", spool / "data", reason="trimmed")
    from kumodr.spool.quarantine import opened

    with opened(spool / "meta", spool / "data", "auto") as halves:
        halves["meta"].replace({TWO_LEFT: meta(recipient="other@b.test")})
    with pytest.raises(errors.TargetIsLive, match="something else"):
        quarantine.put_back([TWO_LEFT.hex()], spool / "meta", spool / "data")
    assert recipients_of(spool, TWO_LEFT) == ("other@b.test",)


@pytest.mark.parametrize(
    ("raw", "left", "expected"),
    [
        (
            b'{ "x": {"recipient":["no"]} ,"recipient" : [ "a" ,"b","\\u00e9\\n" ] ,"sender":"\\u0041","meta":{"n":1}}',
            ["a", "é\n"],
            b'{ "x": {"recipient":["no"]} ,"recipient" : ["a","\xc3\xa9\\n"] ,"sender":"\\u0041","meta":{"n":1}}',
        ),
        (
            b'{"sender":"","recipient":["a","b"],"meta":{},"schedule":null,"\\u0072ecipients":1}\n',
            ["b"],
            b'{"sender":"","recipient":"b","meta":{},"schedule":null,"\\u0072ecipients":1}\n',
        ),
    ],
)
def test_every_other_byte_of_trimmed_metadata_stays(raw: bytes, left: list[str], expected: bytes) -> None:
    assert with_recipients(raw, left) == expected


@pytest.mark.parametrize("left", [[], ["stranger"]])
def test_recipients_are_only_ever_taken_off(left: list[str]) -> None:
    with pytest.raises(ValueError, match="taken off only"):
        with_recipients(meta(recipient=["a", "b"]), left)


def test_a_live_spool_is_not_changed(spool: Path) -> None:
    (spool.parent / "kumodr-restored.json").unlink()
    before = everything(spool)
    with pytest.raises(errors.TargetIsLive):
        do(spool)
    assert everything(spool) == before


def test_a_damaged_spool_is_not_reconciled(tmp_path: Path) -> None:
    spool = site(tmp_path / "r", "rocksdb", META, DATA)
    table = next((spool / "meta").glob("*.sst"))
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(errors.SpoolDamaged), planned(spool):
        pass


# --- evidence ----------------------------------------------------------------------------------


def test_the_window_of_the_disaster_decides_who_was_waiting(tmp_path: Path) -> None:
    """Tried a second before the spool's copy: due again 20 minutes later by KumoMTA's own interval."""
    spool = site(
        tmp_path / "r", "rocksdb", {WAITING: meta()}, {WAITING: b""}, [record("TransientFailure", WAITING, at=RECENT)]
    )
    for terms, expected in (
        ({"disaster": None}, "to_send"),
        ({"disaster": RECENT + timedelta(minutes=19)}, "to_send"),
        ({"disaster": RECENT + timedelta(minutes=21)}, "uncertain"),
        ({"disaster": DISASTER, "retry_interval": timedelta(minutes=1)}, "uncertain"),
    ):
        with planned(spool, **terms) as plan:
            assert sets_of(plan) == {expected: {WAITING.hex()}}, terms
    with planned(spool, disaster=None) as plan:
        assert plan.disaster == UNTIL


def test_surviving_logs_of_the_dead_host_decide_more(tmp_path: Path) -> None:
    spool = site(tmp_path / "r", "localdisk", {NEW: meta(), WAITING: meta()}, {NEW: b"", WAITING: b""})
    logs = tmp_path / "saved [1]*" / "deep"
    write_log(logs, [record("Delivery", NEW, at=AFTER), record("Reception", LOST, at=AFTER)])
    with planned(spool) as plan:
        assert sets_of(plan)["uncertain"] == ids({NEW, WAITING})
    with planned(spool, [logs.parent], disaster=None) as plan:
        assert sets_of(plan) == {"finished": {NEW.hex()}, "uncertain": {WAITING.hex()}}
        assert list(plan.lost_ids(certain=True)) == [LOST.hex()]
        assert plan.disaster == AFTER


def test_the_ledger_stands_for_the_segments_that_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = site(tmp_path / "r", "localdisk", {DELIVERED: meta()}, {DELIVERED: b""}, [record("Delivery", DELIVERED)])
    segment = next((spool.parent / "logs").rglob("2*"))
    (spool.parent / "ledger").mkdir()
    with open_database([spool.parent]) as database:
        name = f"1-kumomta/{segment.name}"
        convert(database, [Segment(segment, name, segment.stat().st_size)], spool.parent / "ledger" / "x.parquet")
    with planned(spool) as plan:
        assert plan.logs.records == 1
        assert sets_of(plan) == {"finished": {DELIVERED.hex()}}
    write_log(segment.parent, [record("Reception", DELIVERED)], "20261124-120000.5")
    with planned(spool) as plan:
        assert plan.logs.records == 2
    segment.unlink()
    with planned(spool) as plan:
        assert sets_of(plan) == {"finished": {DELIVERED.hex()}}


@pytest.mark.parametrize("content", [b"PAR1 and no more", None])
def test_a_ledger_that_is_none_is_said(tmp_path: Path, content: bytes | None) -> None:
    spool = site(tmp_path / "r", "localdisk", {NEW: meta()}, {NEW: b""})
    path = spool.parent / "ledger" / "x.parquet"
    path.parent.mkdir()
    if content is None:
        with open_database([path.parent]) as database:
            database.run(f"COPY (SELECT 1 AS other) TO '{path}' (FORMAT parquet)")
    else:
        path.write_bytes(content)
    with pytest.raises(errors.FileUnreadable, match="move it away"), planned(spool):
        pass


def test_evidence_that_is_damaged_is_not_taken_for_silence(tmp_path: Path) -> None:
    spool = site(tmp_path / "r", "localdisk", {NEW: meta()}, {NEW: b""}, finished=[NEW])
    (spool.parent / "evidence" / "finished.ids").write_bytes(NEW + b"x")
    with pytest.raises(errors.FileUnreadable, match="multiple of 16"), planned(spool):
        pass
    (spool.parent / "evidence" / "evidence.json").write_text('{"spool_until": "yesterday"}')
    with pytest.raises(errors.FileUnreadable, match="is no time"):
        find_evidence(spool)
    (spool.parent / "evidence" / "evidence.json").write_text("{")
    with pytest.raises(errors.FileUnreadable, match="damaged"):
        find_evidence(spool)
    with pytest.raises(errors.LogUnreadable, match="nowhere"):
        find_evidence(spool, [tmp_path / "nowhere"])


def test_a_message_for_thousands_is_trimmed(tmp_path: Path) -> None:
    many = [f"u{number}@é.test" for number in range(2500)]
    left = many[:100] + many[2400:]
    records = [record("Delivery", NEW, many[100:2400]), record("TransientFailure", NEW, left, RECENT)]
    spool = site(tmp_path / "r", "rocksdb", {NEW: meta(recipient=many)}, {NEW: b"x"}, records)
    assert do(spool) == (0, 1)
    assert recipients_of(spool, NEW) == tuple(left)


# --- a real server -----------------------------------------------------------------------------


# --- the command line --------------------------------------------------------------------------


def kumodr(*words: str | Path, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kumodr", "spool", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


TERMS = ("--at", text_of_time(NOW), "--disaster", text_of_time(DISASTER))


def test_the_whole_way_by_the_command_line(spool: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    document = json.loads(kumodr("reconcile", "--spool", spool, "--json", *TERMS, "--out", out, expect=3))
    for name in ("to_send", "finished", "trimmed", "uncertain"):
        assert document[name] == {"count": len(EXPECTED[name]), "ids": sorted(ids(EXPECTED[name]))}
    assert document["lost"] == {"count": 3, "ids": sorted(ids({LOST, META_LOST, BODY_LOST}))}
    assert document["perhaps_lost"]["ids"] == [PERHAPS.hex()]
    assert {name: set(each["ids"]) for name, each in document["others"].items() if each["count"]} == {
        name: ids(keys) for name, keys in EXPECTED.items() if name not in document
    }
    assert document["applied"] is None
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    rows = list(csv.DictReader((out / "lost.csv").open(newline="")))
    assert {row["id"] for row in rows} == ids({LOST, PERHAPS, META_LOST, BODY_LOST})
    assert next(row["sender"] for row in rows if row["id"] == LOST.hex()) == "'=cmd|x"
    assert {each["id"] for each in json.loads((out / "uncertain.json").read_text())} == ids(EXPECTED["uncertain"])
    assert len(list(csv.DictReader((out / "uncertain.csv").open(newline="")))) == len(EXPECTED["uncertain"])

    text = kumodr("reconcile", "--spool", spool, *TERMS, "--uncertain", "hold", "--apply", expect=3)
    assert "moved to" in text
    held = json.loads(kumodr("quarantine", "list", "--reason", "held", "--spool", spool, "--json"))
    assert {each["id"] for each in held["messages"]} == ids(EXPECTED["uncertain"])
    kumodr("quarantine", "put-back", "--reason", "held", "--spool", spool)
    assert ids(EXPECTED["uncertain"]) <= set(contents(spool)[0])
    assert vet.vet(spool / "meta", spool / "data", "auto", NOW) == ()


def test_what_did_we_lose_and_whose_was_it(spool: Path) -> None:
    document = json.loads(kumodr("lost", "--spool", spool, "--json", *TERMS, expect=3))
    assert (document["lost"], document["perhaps_lost"]) == (3, 1)
    assert document["by_tenant"][-1] == {"tenant": "acme", "lost": 1, "perhaps_lost": 1}
    assert {each["id"] for each in document["messages"]} == ids({LOST, PERHAPS, META_LOST, BODY_LOST})
    text = kumodr("lost", "--spool", spool, *TERMS, expect=3)
    assert "3 messages are lost, 1 more perhaps" in text
    assert LOST.hex() in text
    assert "acme" in text


def test_nothing_lost_and_nothing_uncertain_is_done(tmp_path: Path) -> None:
    records = [record("Reception", WAITING, at=LONG_AGO), record("TransientFailure", WAITING, at=RECENT)]
    spool = site(tmp_path / "r", "localdisk", {WAITING: meta()}, {WAITING: b""}, records)
    assert "1 to_send" in kumodr("reconcile", "--spool", spool, *TERMS)
    assert "nothing is lost" in kumodr("lost", "--spool", spool, *TERMS)
    assert json.loads(kumodr("reconcile", "--spool", spool, *TERMS, "--json", "--apply"))["applied"] == {
        "moved": 0, "trimmed": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--disaster", "soon"), errors.USAGE),
        (("--max-age", "long"), errors.USAGE),
        (("--retry-interval", "-1m"), errors.USAGE),
        (("--uncertain", "guess"), errors.USAGE),
        (("--logs", "/nowhere/at/all"), errors.FAILED),
    ],
)
def test_what_is_asked_wrongly_is_a_sentence(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    spool = site(tmp_path / "r", "localdisk", {WAITING: meta()}, {WAITING: b""})
    kumodr("reconcile", "--spool", spool, *words, expect=code)


def test_a_spool_that_was_not_restored_is_looked_at_only(tmp_path: Path) -> None:
    spool = site(tmp_path / "r", "localdisk", {WAITING: meta()}, {WAITING: b""})
    (spool.parent / "kumodr-restored.json").unlink()
    kumodr("reconcile", "--spool", spool, *TERMS, expect=3)
    kumodr("reconcile", "--spool", spool, *TERMS, "--apply", expect=errors.UNSAFE)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_changed_files_keep_their_owner(tmp_path: Path) -> None:
    for kind in KINDS:
        spool = site(tmp_path / kind, kind, META, DATA, RECORDS)
        for path in (spool, *spool.rglob("*")):
            os.chown(path, 999, 998)
        do(spool)
        for half in ("meta", "data"):
            owners = {(path.stat().st_uid, path.stat().st_gid) for path in (spool / half).rglob("*")}
            assert owners == {(999, 998)}, kind
            assert not (spool / half / "rocksdict-config.json").exists()
            assert not (spool / half / "LOG").exists()
