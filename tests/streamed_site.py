"""A site whose base and stream are made for tests, without a loop."""

import json
import random
from datetime import datetime, timedelta
from pathlib import Path

import spool_samples as samples
from streams import Stream, brought_back, content
from vaults import START, Bench, bench

from kumodr.recover.target import MARKER
from kumodr.vault.segment import LogPiece

State = tuple[dict[bytes, bytes], dict[bytes, bytes]]
KINDS = ("rocksdb", "localdisk")


class Site:
    """A site whose spool and log change second by second, and what they were at each."""

    def __init__(self, folder: Path, kind: str, seconds: int, *, seed: int = 1, begun: datetime = START) -> None:
        self.folder = folder / "site"
        self.made: Bench = bench(folder)
        self.stream = Stream(self.made, begun=begun)
        self.states: list[State] = []
        self.logs: list[bytes] = []
        chance = random.Random(seed)
        keys = [samples.key(number=number) for number in range(40 + 6 * seconds)]
        meta = {key: samples.meta(recipient=f"{n}@b.test") for n, key in enumerate(keys[:40])}
        data = {key: chance.randbytes(chance.randrange(1, 3000)) for key in keys[:40]}
        log = b"first "
        samples.write_spool(self.folder / "spool", kind, meta, data)
        (self.folder / "logs").mkdir()
        (self.folder / "logs" / "open").write_bytes(log)
        self.states.append((dict(meta), dict(data)))
        self.logs.append(log)
        for second in range(seconds):
            changes: tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]] = ({}, {})
            for key in keys[40 + 6 * second : 46 + 6 * second]:
                changes[0][key], changes[1][key] = samples.meta(recipient=f"new@{second}.test"), chance.randbytes(2000)
            for key in chance.sample(sorted(meta), 4):
                changes[0][key] = changes[1][key] = None
            for key in chance.sample(sorted(meta), 2):
                if key not in changes[0]:
                    changes[0][key] = samples.meta(recipient=f"deferred@{second}.test")
            gone = samples.key(age=timedelta(minutes=5), number=second)
            changes[0][gone] = changes[1][gone] = None
            for now, change in zip((meta, data), changes, strict=True):
                now.update({key: value for key, value in change.items() if value is not None})
                for key, value in change.items():
                    if value is None:
                        now.pop(key, None)
            more = f"second {second} ".encode()
            piece = LogPiece("1-logs/open", len(log), more, 0o440 if second == seconds - 1 else 0o640, second * 10**9)
            log += more
            self.stream.add(*changes, logs=(piece,))
            self.states.append((dict(meta), dict(data)))
            self.logs.append(log)

    def deleted(self, first: int, last: int) -> set[bytes]:
        """The keys whose last change in a range of segments is a delete."""
        final: dict[bytes, bytes | None] = {}
        for each in self.stream.contents[first - 1 : last]:
            final.update(each.meta)
        return {key for key, value in final.items() if value is None}

    def proves(self, target: Path, number: int, *, first: int = 1, **words: object) -> None:
        """Restore, and compare with the state after segment `number` (0: the base alone)."""
        recovered = brought_back(self.made, target, **words)
        assert content(target / "spool") == self.states[number]
        assert (target / "logs" / "1-logs" / "open").read_bytes() == self.logs[number]
        marker = json.loads((target / MARKER).read_text())
        evidence = json.loads((target / "evidence" / "evidence.json").read_text())
        ids = (target / "evidence" / "finished.ids").read_bytes()
        found = {ids[at : at + 16] for at in range(0, len(ids), 16)}
        if number == 0:
            assert recovered.stream is marker["stream"] is evidence["stream"] is None
            assert found == set()
            assert evidence["spool_until"] == "2026-11-23T12:00:00.000000Z"
            return
        assert found == self.deleted(first, number)
        assert evidence["stream"]["last"] == marker["stream"]["last"] == number
        assert evidence["stream"]["first"] == first
        assert evidence["spool_until"] == evidence["logs_until"] == f"2026-11-23T12:00:{number:02d}.000000Z"
        assert (target / "evidence" / "finished.ids").stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in target.iterdir()) == ["evidence", MARKER, "logs", "spool"]
        facts = marker["components"]["spool"]["facts"]
        assert (facts["messages"], facts["bodies"]) == tuple(map(len, self.states[number]))


def flip(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
