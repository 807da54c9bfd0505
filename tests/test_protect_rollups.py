"""The loop repeats minutes, and hours as far as they fit into memory: they lead where the segments lead."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from vaults import START, Bench, bench

from kumodr.protect import segment_writer
from kumodr.protect.segment_writer import SegmentWriter
from kumodr.protect.shipper import Shipment
from kumodr.vault.nodes import register
from kumodr.vault.segment import Content, LogPiece
from kumodr.vault.stream import Part, listing, path, trust_of
from kumodr.vault.streamread import Reading

EVERY = timedelta(seconds=5)
State = dict[bytes, bytes | None]


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


class Written:
    """A stream with a segment every five seconds: a message comes with each and leaves ten minutes later."""

    def __init__(self, folder: Path, size: int = 100) -> None:
        self.made: Bench = bench(folder)
        register(self.made.vault, self.made.key)
        self.size = size
        self.number = 0
        self.rollups: list[Shipment] = []
        self.contents: list[Content] = []
        self.writer = SegmentWriter(self.made.vault, self.made.key, 1, 1, None)

    def go_on(self, minutes: int, *, partial: Iterable[int] = ()) -> None:
        for _ in range(12 * minutes):
            self.number += 1
            number, size = self.number, self.size
            changes: State = {key(number): bytes([number % 251]) * size, key(9 * 10**6 + number): None}
            if number > 120:
                changes[key(number - 120)] = None
            log = LogPiece("1-logs/open", 10 * (number - 1), b"%010d" % number, 0o600, number)
            content = Content(changes, {each: value and value + b"body" for each, value in changes.items()}, (log,))
            self.contents.append(content)
            taken, facts = START + number * EVERY, {"messages": 1, "bytes": size}
            done = self.writer.seal(content, taken, partial=number in partial, facts=facts, after={})
            self.put(done)
            for each in self.writer.rollups(taken) if number not in partial else ():
                self.rollups.append(each)
                self.put(each)

    def put(self, each: Shipment) -> None:
        assert each.pieces is not None
        assert self.made.vault.store.put_if_absent(each.name, each.pieces)

    def read(self, begin: int, end: int) -> tuple[State, State, bytes, list[Part]]:
        """What the fewest objects lead to: both halves, what they hold of the log, and the objects."""
        vault, found = self.made.vault, listing(self.made.vault, self.made.key.node, 1)
        reading = Reading(vault, found, begin, end, trust_of(vault, {}), self.made.identities)
        meta: State = {}
        data: State = {}
        log = bytearray()
        parts: list[Part] = []
        for segment in reading:
            content = segment.content.unpacked()
            meta.update(content.meta)
            data.update(content.data)
            for piece in content.logs:
                log[piece.offset : piece.offset + len(piece.data)] = piece.data
            parts.append(segment.part)
        assert reading.problems == []
        assert reading.last == end
        return meta, data, bytes(log), parts

    def proves(self, end: int) -> list[Part]:
        meta: State = {}
        data: State = {}
        for each in self.contents[:end]:
            meta.update(each.meta)
            data.update(each.data)
        found = self.read(1, end)
        assert found[:3] == (meta, data, b"".join(b"%010d" % (number + 1) for number in range(end)))
        return found[3]


def spans(parts: Iterable[Part]) -> list[int]:
    return [part.last - part.first + 1 for part in parts]


def test_hours_and_minutes_lead_where_the_segments_lead(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.go_on(140)
    hour, *others = sorted({each.number - first(each) + 1 for each in written.rollups}, reverse=True)
    assert 12 * 60 <= hour <= 12 * 66
    assert others == [13], "a minute is from one segment to the first that is a minute later"
    newest = written.proves(12 * 140)
    assert spans(newest).count(hour) == 2
    assert len(newest) < 40, "of 1,680 segments"
    for end in (hour - 1, hour, hour + 1, 1000):
        assert spans(written.proves(end)).count(hour) == (end >= hour)
    middle = written.read(100, 2 * hour)
    assert spans(middle[3]) == [hour, hour], "the hour that number 100 is in, from its beginning"
    for number in range(2, 2 * hour):
        (tmp_path / "vault" / f"stream/{written.made.key.node}/00000001/{number:010d}.seg").unlink()
    written.proves(12 * 140)


def test_an_hour_that_is_lost_or_damaged_costs_time_only(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.go_on(70)
    whole = written.proves(12 * 70)
    (hour,) = (part for part in whole if part.last - part.first > 100)
    (tmp_path / "vault" / hour.name).unlink()
    assert len(written.proves(12 * 70)) > 50
    found = listing(written.made.vault, written.made.key.node, 1)
    assert all(part != hour for part in path(found, 1))


def test_of_what_does_not_fit_less_than_an_hour_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_writer, "LARGEST_LONG", 300_000)
    written = Written(tmp_path, size=1000)
    written.go_on(60)
    long = [each.number - first(each) + 1 for each in written.rollups if each.number - first(each) > 12]
    assert 4 <= len(long) <= 15
    assert all(each >= 4 * 13 for each in long)
    assert max(each.size for each in written.rollups) < 300_000
    written.proves(12 * 60)


def test_a_busy_site_has_minutes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_writer, "LARGEST_LONG", 60_000)
    written = Written(tmp_path, size=1000)
    written.go_on(20)
    assert {each.number - first(each) + 1 for each in written.rollups} == {13}
    written.proves(12 * 20)


def test_a_burst_ends_the_hour_and_another_begins_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_writer, "_LARGEST_ROLLUP", 200_000)
    written = Written(tmp_path)
    written.go_on(20, partial=(13, 100, 101, 102))
    written.size = 150_000
    written.go_on(1)
    written.size = 100
    written.go_on(10)
    long = [(first(each), each.number) for each in written.rollups if each.number - first(each) > 20]
    assert [begun for begun, _ in long] == [1]
    written.go_on(60)
    long = [(first(each), each.number) for each in written.rollups if each.number - first(each) > 20]
    assert len(long) == 2
    assert long[0][0] == 1
    assert long[1][0] > 241
    assert {number for _, number in long}.isdisjoint({13, 100, 101, 102}), "no state ends in the middle of a moment"
    written.proves(12 * 91)


def first(each: Shipment) -> int:
    return int(each.name.rpartition("/")[2].partition("-")[0])
