"""Delivery logs are followed whole, whatever happens to them between two looks."""

import os
import random
from pathlib import Path

import pytest

from kumodr.protect.log_tail import LogTail
from kumodr.vault.segment import LogPiece


class Logs:
    """What pieces make of the logs."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.modes: dict[str, int] = {}

    def take(self, pieces: list[LogPiece]) -> None:
        for piece in pieces:
            content = self.files.setdefault(piece.path, bytearray())
            assert piece.offset <= len(content), f"a gap in {piece.path}"
            content[piece.offset : piece.offset + len(piece.data)] = piece.data
            self.modes[piece.path] = piece.mode


@pytest.mark.parametrize("seed", range(12))
def test_logs_are_whole_whatever_happens_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Segments grow and are finished; some cannot be looked at or read for a while; the loop is started again."""
    chance = random.Random(seed)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    tail = LogTail([str(each) for each in folders], None)
    kept, held = tail.position(), Logs()
    unwell: set[str] = set()
    real, opened = os.lstat, os.open

    def lstat(path: str, **words: object) -> os.stat_result:
        if f"lstat {path}" in unwell:
            raise OSError(5, "Input/output error", path)
        return real(path)

    def open_(path: str, flags: int, *words: int, **more: object) -> int:
        if f"open {path}" in unwell:
            raise OSError(5, "Input/output error", path)
        return opened(path, flags, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(os, "open", open_)
    moment, made = 1_700_000_000, 0
    growing: list[Path] = []
    for _ in range(120):
        moment += chance.choice([0, 1, 30])
        act = chance.random()
        if act < 0.25 or not growing:
            made += 1
            growing.append(chance.choice(folders) / f"log-{made:03d}")
            growing[-1].write_bytes(b"")
        elif act < 0.6:
            with chance.choice(growing).open("ab") as file:
                file.write(chance.randbytes(chance.choice([1, 300, 5_000])))
        elif act < 0.8:
            growing.pop(chance.randrange(len(growing))).chmod(0o444)
        for path in growing:
            os.utime(path, (moment, moment))
        unwell.clear()
        if chance.random() < 0.3:
            unwell.update(f"{chance.choice(['lstat', 'open'])} {path}" for path in growing if chance.random() < 0.5)
        if chance.random() < 0.7:
            held.take(list(tail.pieces(chance.choice([100, 4_000, 1 << 20]))))
            kept = tail.position()
        if chance.random() < 0.15:
            tail = LogTail([str(each) for each in folders], kept)
    unwell.clear()
    for _ in range(2):
        while pieces := list(tail.pieces(1 << 20)):
            held.take(pieces)
    expected = {
        f"{number}-{folder.name}/{path.name}": path.read_bytes()
        for number, folder in enumerate(folders, 1)
        for path in folder.iterdir()
    }
    assert {name: bytes(content) for name, content in held.files.items() if content} == {
        name: content for name, content in expected.items() if content
    }
    for number, folder in enumerate(folders, 1):
        for path in folder.iterdir():
            if not path.stat().st_mode & 0o222:
                assert not held.modes[f"{number}-{folder.name}/{path.name}"] & 0o222, "that it is finished is known"
    assert len(tail.position()["offsets"]) <= len(growing)


def test_segments_that_are_deleted_are_forgotten(tmp_path: Path) -> None:
    tail = LogTail([str(tmp_path)], None)
    for number in range(30):
        path = tmp_path / f"log-{number}"
        path.write_bytes(b"x")
        list(tail.pieces(1 << 20))
        path.chmod(0o444)
        list(tail.pieces(1 << 20))
        path.unlink()
    open_one = tmp_path / "open"
    open_one.write_bytes(b"y")
    list(tail.pieces(1 << 20))
    open_one.unlink()
    list(tail.pieces(1 << 20))
    assert tail.position()["offsets"] == {}
    assert sum(map(len, tail._seen.values())) == 0
