"""Captured spools of a real KumoMTA, reconciled with their logs."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from reconcile_samples import contents, planned, sets_of, site
from spool_samples import meta, restored

from kumodr.ledger.convert import Segment, convert
from kumodr.ledger.database import open_database
from kumodr.reconcile.apply import apply

CAPTURES = ["localdisk-clean-stop", "localdisk-killed", "rocksdb-clean-stop", "rocksdb-killed",
            "rocksdb-killed-long-segment", "rocksdb-killed-many-flushes"]  # fmt: skip


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_is_reconciled(unpacked, fixtures_directory: Path, tmp_path: Path, name: str) -> None:
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    captured = unpacked(name)
    spool = restored(captured / "spool", tmp_path / "back")
    with planned(spool, [captured / "logs"], disaster=None) as plan:
        found = sets_of(plan)
        missing = {*plan.lost_ids(certain=True), *plan.lost_ids(certain=False)}
        apply(plan, spool / "meta", spool / "data", "auto", lambda *_: None)
    assert set().union(*found.values()) == set(expected["meta_ids"])
    assert set(found) <= {"to_send", "uncertain", "trimmed", "finished"}
    assert missing <= set(expected["acked_not_in_spool_and_not_terminal"])
    if expected["ended_by"] == "stop":
        assert set(found) == {"to_send"}
        assert not missing
    staying = set(contents(spool)[0])
    assert staying == set(expected["meta_ids"]) - found.get("finished", set())
    assert staying.isdisjoint(expected.get("spooled_and_already_at_the_sink", ()))


def test_what_a_stale_copy_holds_of_a_capture_is_finished_by_its_log(
    unpacked, fixtures_directory: Path, tmp_path
) -> None:
    """Every message that the log ends is put into a spool, as a base of an earlier time has it: none stays."""
    expected = json.loads((fixtures_directory / "rocksdb-killed.json").read_text())
    logs = unpacked("rocksdb-killed") / "logs"
    ended = set(expected["terminal_ids_in_log"]) - set(expected["spooled_but_terminal_in_log"])
    addresses = {}
    from kumodr.ledger.records import parse as parse_record
    from kumodr.ledger.segments import read_records, segment_paths

    for path in segment_paths(logs):
        for line in read_records(path):
            each = parse_record(line)
            if each is not None and each.type == "Reception":
                addresses[each.id] = each.recipients
    entries = {bytes.fromhex(each): meta(recipient=addresses[each]) for each in ended}
    spool = site(tmp_path / "r", "rocksdb", entries, dict.fromkeys(entries, b"x"))
    with planned(spool, [logs]) as plan:
        assert sets_of(plan) == {"finished": ended}


def test_a_transferred_message_is_finished_here(unpacked, tmp_path: Path) -> None:
    logs = unpacked("logs-xfer-source") / "logs"
    with open_database([logs]) as database:
        segments = [Segment(path, path.name, 0) for path in logs.iterdir() if not path.name.startswith(".")]
        convert(database, segments, database.directory / "x.parquet")
        rows = database.rows(
            "SELECT DISTINCT id, moved_to FROM read_parquet(?) WHERE type = 'XferOut'",
            [str(database.directory / "x.parquet")],
        )
    assert rows
    assert all(len(moved) == 32 and moved != identifier for identifier, moved in rows)
    entries = {bytes.fromhex(identifier): meta() for identifier, _ in rows}
    spool = site(tmp_path / "r", "localdisk", entries, dict.fromkeys(entries, b"x"))
    with planned(spool, [logs], max_age=timedelta(days=9999)) as plan:
        assert sets_of(plan) == {"finished": {identifier for identifier, _ in rows}}
