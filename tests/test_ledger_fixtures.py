"""Delivery logs of a real KumoMTA: every record of every capture, and segments cut anywhere."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kumodr import errors
from kumodr.ledger import segments
from kumodr.ledger.fates import ENDS, ENDS_FOR_RECIPIENTS, Fate, fates
from kumodr.ledger.records import Record, parse
from kumodr.ledger.segments import read_records, segment_paths

SPOOLS = [
    "localdisk-clean-stop", "localdisk-killed", "rocksdb-clean-stop", "rocksdb-expired", "rocksdb-killed",
    "rocksdb-killed-long-segment", "rocksdb-killed-many-flushes",
]  # fmt: skip


def records_of(logs: Path) -> Iterator[Record]:
    for path in segment_paths(logs):
        for line in read_records(path):
            record = parse(line)
            assert record is not None
            yield record


def line(kind: str, identifier: str = "1" * 32, recipient: object = "a@x.test", **more: object) -> bytes:
    return json.dumps({"type": kind, "id": identifier, "recipient": recipient, **more}).encode()


def fate(*lines: bytes) -> Fate:
    (found,) = fates(record for each in lines if (record := parse(each)) is not None).values()
    return found


@pytest.mark.parametrize("name", SPOOLS)
def test_every_record_of_a_capture_is_read(unpacked, fixtures_directory: Path, name: str) -> None:
    """The captures' own lists stop 64 KiB before the end of a cut segment; here it is read to its last whole block."""
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    records = list(records_of(unpacked(name) / "logs"))
    listed = records[: sum(expected["log_records_by_type"].values())]
    assert Counter(record.type for record in listed) == expected["log_records_by_type"]
    assert all(record.event_time is not None and record.node for record in records)
    with_an_end = {record.id for record in listed if record.type in ENDS | ENDS_FOR_RECIPIENTS}
    assert with_an_end == set(expected["terminal_ids_in_log"])
    assert expected["ended_by"] == "kill" or listed == records
    more = {each.id for each in fates(records).values() if each.finished} - with_an_end
    assert more.isdisjoint(expected["meta_ids"])
    assert more <= set(expected["acked_not_in_spool_and_not_terminal"])


@pytest.mark.parametrize("name", SPOOLS)
def test_what_is_in_the_spool_and_has_an_end_in_the_log_is_found(unpacked, fixtures_directory: Path, name: str) -> None:
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    found = fates(records_of(unpacked(name) / "logs"), set(expected["meta_ids"]))
    spooled = {identifier: each for identifier, each in found.items() if each.ended or each.ended_by}
    assert sorted(spooled) == sorted(expected["spooled_but_terminal_in_log"])
    for each in spooled.values():
        assert not each.finished
        assert each.left == ("defer-b@d6.test",)


def test_whether_a_segment_is_whole_is_told_by_its_frame_and_not_by_its_mode(unpacked) -> None:
    whole = [read_records(path) for path in segment_paths(unpacked("rocksdb-clean-stop") / "logs")]
    cut = [read_records(path) for path in segment_paths(unpacked("rocksdb-killed-long-segment") / "logs")]
    assert all(list(each) and each.finished for each in whole)
    assert [(len(list(each)) > 0, each.finished, each.problem) for each in cut] == [(True, False, None)]


def test_a_transfer_ends_a_message_here_and_names_its_new_id(unpacked) -> None:
    source = fates(records_of(unpacked("logs-xfer-source") / "logs"))
    target = fates(records_of(unpacked("logs-xfer-target") / "logs"))
    moved = [each for each in source.values() if each.ended_by == "XferOut"]
    assert moved
    assert all(each.finished and each.moved_to in target for each in moved)
    assert all(target[each.moved_to].is_received for each in moved if each.moved_to)


def test_each_type_of_record_of_the_api_capture_is_parsed(fixtures_directory: Path) -> None:
    lines = (fixtures_directory / "api" / "log-records.jsonl").read_bytes().splitlines()
    found = [parse(each) for each in lines]
    assert [each.type for each in found if each] == [json.loads(each)["type"] for each in lines]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0), sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_a_cut_segment_gives_whole_lines_only_and_a_prefix_of_them(
    tmp_path_factory: pytest.TempPathFactory, cut: int, sizes: list[int]
) -> None:
    lines = [json.dumps({"n": number, "x": "y" * size}).encode() for number, size in enumerate(sizes)]
    compressor = zstandard.ZstdCompressor().compressobj()
    written = b""
    for each in lines:
        written += compressor.compress(each + b"\n") + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    written += compressor.flush()
    path = tmp_path_factory.mktemp("cut") / "20261123-000000.1"
    path.write_bytes(written[: cut % (len(written) + 1)])
    records = read_records(path)
    found = list(records)
    assert found == lines[: len(found)]
    assert records.problem is None
    assert records.finished == (path.stat().st_size == len(written))
    assert not records.finished or found == lines


def test_an_empty_a_damaged_and_a_foreign_file_are_told_apart(tmp_path: Path) -> None:
    empty, damaged, foreign = (tmp_path / name for name in ("1", "2", "3"))
    empty.write_bytes(b"")
    good = bytearray(
        zstandard.ZstdCompressor(write_checksum=True).compress(
            b"".join(b'{"type":"x","n":%d}\n' % number for number in range(90_000))
        )
    )
    good[len(good) // 2] ^= 0x55
    damaged.write_bytes(good)
    foreign.write_bytes(b"not a segment at all")
    for path in (empty, damaged, foreign):
        records = read_records(path)
        lines = list(records)
        assert not records.finished
        assert all(parse(each) for each in lines)
        assert (records.problem is None) == (path == empty)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LONGEST_LINE", 1000)
    path = tmp_path / "1"
    path.write_bytes(zstandard.ZstdCompressor().compress(b"a\n" + b"x" * 3_000_000 + b"\nb\n"))
    records = read_records(path)
    assert list(records) == [b"a", b"b"]
    assert records.skipped == 1


def test_two_frames_in_a_file_are_both_read(tmp_path: Path) -> None:
    path = tmp_path / "1"
    path.write_bytes(zstandard.compress(b"a\n") + zstandard.compress(b"b\n"))
    records = read_records(path)
    assert list(records) == [b"a", b"b"]
    assert records.finished


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.LogUnreadable, match="nowhere"):
        segment_paths(tmp_path / "nowhere")
    with pytest.raises(errors.LogUnreadable, match="gone"):
        list(read_records(tmp_path / "gone"))


def test_checkpoints_and_other_files_are_no_segments(tmp_path: Path) -> None:
    for name in (".tailer-checkpoint", "dmarc.log", "20261123-215747.6", "20261123-215746.9_recv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "2026").mkdir()
    assert [path.name for path in segment_paths(tmp_path)] == ["20261123-215746.9_recv", "20261123-215747.6"]


def test_a_batch_is_finished_when_each_recipient_is() -> None:
    received = line("Reception", recipient=["a@x.test", "b@x.test"])
    one = fate(received, line("Delivery", recipient="a@x.test"))
    assert (one.finished, one.left) == (False, ("b@x.test",))
    assert fate(received, line("Delivery"), line("Bounce", recipient=["b@x.test"])).finished
    assert fate(received, line("Delivery"), line("Expiration", recipient="b@x.test")).left == ()
    assert fate(line("Delivery")).left_of(("a@x.test", "b@x.test")) == ("b@x.test",)


@pytest.mark.parametrize("kind", ["TransientFailure", "Delayed", "AdminRebind", "DeferredInjectionRebind", "New"])
def test_what_ends_nothing_does_not_finish_a_message(kind: str) -> None:
    assert not fate(line("Reception"), line(kind)).finished


def test_reports_and_rejections_say_nothing_of_a_message() -> None:
    assert fates(r for each in ("OOB", "Feedback") if (r := parse(line(each)))) == {}
    assert fates(r for r in [parse(line("Rejection", identifier=""))] if r) == {}


def test_a_generated_injection_is_marked() -> None:
    found = fate(line("Reception"), line("Delivery", delivery_protocol="HttpInjectionGenerator"))
    assert found.finished
    assert found.is_generator


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"id":"x"}', b"template says hello", b"[" * 100_000])
def test_what_is_no_record_is_none(text: bytes) -> None:
    assert parse(text) is None
