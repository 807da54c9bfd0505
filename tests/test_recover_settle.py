"""What a stream did to the keys of a spool is written once, read back, and counted; what is lost on the way shows."""

import os
from pathlib import Path
from typing import Any

import pytest
import spool_samples as samples
from streamed_site import KINDS, Site
from streams import base, brought_back, content

from kumodr import errors
from kumodr.recover.halves import open_half_of_copy
from kumodr.recover.target import MARKER
from kumodr.vault.facts import StreamJoin
from kumodr.vault.packed import Changes, parts_of


class Careless:
    """Makes a table as it is told, but for some keys: it loses them, or gives them another value."""

    def __init__(self, table: Any, keys: set[bytes], value: bytes | None) -> None:
        self.table, self.keys, self.value = table, keys, value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if key not in self.keys or self.value is not None:
            self.table[key] = value if key not in self.keys else self.value

    def __delitem__(self, key: bytes) -> None:
        del self.table[key]

    def finish(self) -> None:
        self.table.finish()


@pytest.mark.parametrize("value", [None, b"other"])
def test_a_change_that_got_lost_on_the_way_is_noticed(
    value: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kumodr.recover.tables import Tables

    site = Site(tmp_path, "rocksdb", 3)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    lost = {next(key for key, value in site.stream.contents[2].data.items() if value is not None)}
    begin = Tables._begin

    def careless(self: Tables) -> Any:
        self._writer = Careless(begin(self), lost, value)
        return self._writer

    monkeypatch.setattr(Tables, "_begin", careless)
    with pytest.raises(errors.ComponentDamaged, match="something else than the stream put"):
        brought_back(site.made, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_file_that_does_not_hold_what_was_put_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kumodr.recover.halves import LocalHalf

    site = Site(tmp_path, "localdisk", 3)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    put = LocalHalf.put
    monkeypatch.setattr(LocalHalf, "put", lambda self, key, value: put(self, key, value[:-1]))
    with pytest.raises(errors.ComponentDamaged, match="than the stream put"):
        brought_back(site.made, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_large_stream_is_settled_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kumodr.recover import settle
    from kumodr.recover.journal import Journal, Noted

    monkeypatch.setattr(settle, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(settle, "_processors", lambda: 3)
    site = Site(tmp_path, "rocksdb", 6)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    spread = {bytes([first]) * 16: samples.meta() for first in range(0, 256, 3)}
    short = {b"short": samples.meta(), b"\xff\xff": samples.meta()}
    site.stream.add(spread | short, spread)
    gone = dict.fromkeys([*list(spread)[::2], b"short"])
    site.stream.add(gone, gone)
    brought_back(site.made, tmp_path / "back")
    left = {key: value for key, value in spread.items() if key not in gone}
    meta, data = content(tmp_path / "back" / "spool")
    assert meta == site.states[6][0] | left | {b"\xff\xff": short[b"\xff\xff"]}
    assert data == site.states[6][1] | left
    ids = (tmp_path / "back" / "evidence" / "finished.ids").read_bytes()
    finished = site.deleted(1, 6) | {key for key in gone if len(key) == 16}
    assert sorted(ids[at : at + 16] for at in range(0, len(ids), 16)) == sorted(finished)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["evidence", MARKER, "logs", "spool"]
    assert not list((tmp_path / "back").rglob("rocksdict-config.json"))
    noted = Journal.noted

    def damaged(self: Journal) -> Noted:
        found = noted(self)
        with found.path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        return found

    monkeypatch.setattr(Journal, "noted", damaged)
    with pytest.raises(errors.ComponentDamaged, match="other changes than were noted"):
        brought_back(site.made, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_changes_lie_in_a_segment_in_any_order(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys were not always in order, and a put of a key that the same segment deletes counts."""
    from kumodr.vault import segment

    def unordered(half: str, changes: Changes) -> list[tuple[str, list[bytes]]]:
        parts = dict(parts_of(half, changes))
        (sizes,) = parts[f"{half}.sizes"]
        pairs = [sizes[at : at + 8] for at in range(0, len(sizes), 8)]
        return [
            (f"{half}.gone", sorted([*parts[f"{half}.gone"], *changes])),
            (f"{half}.sizes", pairs[::-1]),
            *((name, parts[name][::-1]) for name in (f"{half}.keys", f"{half}.values")),
        ]

    site = Site(tmp_path, kind, 2)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    monkeypatch.setattr(segment, "parts_of", unordered)
    new = {bytes([first]) * 16: samples.meta() for first in (200, 3, 77, 77, 90)}
    site.stream.add(new, new)
    brought_back(site.made, tmp_path / "back")
    assert content(tmp_path / "back" / "spool") == (site.states[2][0] | new, site.states[2][1] | new)


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_with_bodies_that_have_no_metadata(kind: str, tmp_path: Path) -> None:
    """A base may hold the body of a message that was just being accepted; the stream then says what became of it."""
    site = Site(tmp_path, kind, 2)
    lone = {bytes([first]) * 16: b"body" for first in (7, 90, 91)}
    for half, changes in (("meta", {}), ("data", lone)):
        held = open_half_of_copy(site.folder / "spool" / half, tmp_path / f"{half}.engine")
        held.apply(changes)
        held.finish()
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    seven, *others = lone
    site.stream.add({seven: samples.meta()}, {})
    site.stream.add({}, {others[0]: None})
    brought_back(site.made, tmp_path / "back")
    meta, data = content(tmp_path / "back" / "spool")
    assert meta == site.states[2][0] | {seven: samples.meta()}
    assert data == site.states[2][1] | {key: lone[key] for key in (seven, others[1])}
