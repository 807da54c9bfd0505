"""Whatever happens in whatever order: a base and what was followed since are the database, or a reason says why not.

Twice: with logs made here, byte by byte, where it is known exactly when following must fail; and with a real database
in a process that is killed.
"""

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from wal_bytes import Entry, batch_of, database_of, log_of, varint
from wal_database import WalDatabase, digests, read_all

from kumodr.protect.wal.follow import Cursor, Follower, start_of
from kumodr.protect.wal.records import WalUnusable

ENTRIES = st.lists(
    st.tuples(
        st.integers(0, 8).map(lambda number: number.to_bytes(16, "big")),
        st.none() | st.sampled_from([0, 5, 127, 128, 16_000, 32_700, 33_000, 90_000]).map(bytes),
    ),
    min_size=1,
    max_size=3,
)


class MadeLogs(RuleBasedStateMachine):
    """A writer that appends to logs in steps of any size, rotates, unlinks and dies; a follower beside it."""

    @initialize()
    def begin(self) -> None:
        self.scratch = Path(tempfile.mkdtemp())
        self.folder = database_of(self.scratch / "spool")
        self.manifest = self.folder / "MANIFEST-000004"
        self.sequence = 1
        self.state: dict[bytes, bytes | None] = {}
        self.log = 5
        self.unlinked: dict[int, bool] = {}
        self.empty_log()
        self.rebase()

    def empty_log(self) -> None:
        self.planned, self.written = b"", 0
        self.records: list[tuple[int, int, list[Entry]]] = []
        self.path = self.folder / f"{self.log:06d}.log"
        self.path.touch()
        self.holds_records = False

    def rebase(self) -> None:
        """Take the state as it is as a base, and follow from a cursor that was taken just before."""
        cursor = start_of(self.folder)
        self.base = dict(self.state)
        self.open(cursor)

    def open(self, cursor: Cursor) -> None:
        self.follower = Follower(self.folder, cursor)
        self.changed: dict[bytes, bytes | None] = {}
        self.checkpoint = (cursor, dict(self.base))
        self.missed = False
        self.seen = {number for number in self.present() if number >= cursor.log}
        self.gone = cursor.log not in self.seen

    def present(self) -> set[int]:
        return {int(path.stem) for path in self.folder.glob("*.log")}

    @rule(entries=ENTRIES)
    def plan(self, entries: list[Entry]) -> None:
        begin = self.sequence + sum(len(each) for _end, _sequence, each in self.records)
        self.planned = log_of([batch_of(begin, entries)], self.planned)
        self.records.append((len(self.planned), begin, entries))

    @rule(part=st.integers(0, 100))
    def grow(self, part: int) -> None:
        """Let the system have some more of what the writer writes; a record counts when its last byte is there."""
        until = self.written + (len(self.planned) - self.written) * part // 100
        with self.path.open("ab") as file:
            file.write(self.planned[self.written : until])
        self.written = until
        while self.records and self.records[0][0] <= until:
            _end, _sequence, entries = self.records.pop(0)
            self.sequence += len(entries)
            self.state.update(entries)
            self.holds_records = True

    @rule(step=st.integers(1, 5), torn=st.booleans())
    def rotate(self, step: int, torn: bool) -> None:
        """Begin a new log; where the writer died, what it had not finished is cut off and its numbers come again."""
        if not torn:
            self.grow(100)
        self.unlinked[self.log] = self.holds_records
        self.log += step
        self.empty_log()

    @rule()
    def unlink(self) -> None:
        """What a flush does: the MANIFEST tells the last number, then the older logs go."""
        with self.manifest.open("ab") as file:
            known = self.manifest.read_bytes()
            file.write(log_of([varint(3) + varint(9) + varint(4) + varint(self.sequence - 1)], known)[len(known) :])
        for number in self.present() - {self.log}:
            (self.folder / f"{number:06d}.log").unlink()
            if number > self.follower.cursor.log and number not in self.seen and self.unlinked[number]:
                self.missed = True

    @rule()
    def look(self) -> None:
        behind = self.follower.behind()
        self.seen |= self.present()
        assert behind >= 0

    @rule(limit=st.sampled_from([1, 1000, 100_000, 1 << 30]))
    def advance(self, limit: int) -> None:
        before = self.follower.cursor
        self.seen |= self.present()
        try:
            advance = self.follower.advance(self.changed, limit)
        except WalUnusable as reason:
            self.refused(str(reason))
            return
        assert not self.gone
        assert advance.more or not self.missed
        assert advance.bytes < limit + 200_000 + 32768
        after = self.follower.cursor
        assert (after.log, after.offset) >= (before.log, before.offset)
        if not advance.more:
            self.compare()

    @rule()
    def restart(self) -> None:
        """Go on with a new follower from where this one stands."""
        self.base |= self.changed
        cursor = Cursor.of(self.follower.cursor.document())
        self.follower.close()
        missed = self.missed
        self.open(cursor)
        self.missed = missed and not self.gone

    @rule()
    def go_back(self) -> None:
        """A follower died before it stored its cursor: an older one goes on, and reads some records again."""
        self.follower.close()
        cursor, self.base = self.checkpoint
        missed = self.missed
        self.open(cursor)
        self.missed = missed and not self.gone

    @rule()
    def read_to_the_end(self) -> None:
        for _ in range(2):
            self.advance(1 << 30)

    def compare(self) -> None:
        state = {**self.base, **self.changed}
        assert {key: value for key, value in state.items() if value is not None} == {
            key: value for key, value in self.state.items() if value is not None
        }

    def refused(self, reason: str) -> None:
        assert "is gone" in reason if self.gone else self.missed and "a log was missed" in reason, reason
        self.follower.close()
        self.rebase()
        assert not self.gone

    def teardown(self) -> None:
        if hasattr(self, "follower"):
            self.read_to_the_end()
            self.follower.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


class KilledServer(RuleBasedStateMachine):
    """A real database with small buffers, flushed and compacted all the time, killed and started; a follower beside."""

    @initialize(seed=st.integers(0, 1 << 30), buffer=st.sampled_from([64 << 10, 512 << 10]))
    def begin(self, seed: int, buffer: int) -> None:
        self.scratch = Path(tempfile.mkdtemp())
        self.random = Random(seed)
        self.database = WalDatabase(self.scratch / "spool", buffer=buffer)
        self.rebase()

    def rebase(self) -> None:
        """The cursor is taken first, and more is written before the base is."""
        cursor = start_of(self.database.path)
        self.open(cursor)
        self.write(1)
        self.base = self.database.dump()
        self.checkpoints = [(cursor, self.base)]

    def open(self, cursor: Cursor) -> None:
        self.follower = Follower(self.database.path, cursor)
        self.changed: dict[bytes, bytes | None] = {}

    def an_entry(self) -> tuple[int, int | None, int]:
        seed = None if self.random.random() < 0.4 else self.random.getrandbits(30)
        return self.random.randrange(30), seed, self.random.choice([0, 10, 300, 8_000, 60_000])

    @rule(count=st.integers(1, 30))
    def write(self, count: int) -> None:
        for _ in range(count):
            self.database.send("write", *self.an_entry())
        self.database.wait()

    @rule(count=st.integers(1, 5))
    def write_together(self, count: int) -> None:
        self.database.tell("batch", *(self.an_entry() for _ in range(count)))

    @rule(verb=st.sampled_from(["flush", "reopen"]))
    def switch(self, verb: str) -> None:
        self.database.tell(verb)

    @rule(count=st.integers(0, 30), looks=st.integers(0, 3))
    def kill(self, count: int, looks: int) -> None:
        """Kill it in the middle of writing, while it is being followed."""
        for _ in range(count):
            self.database.send("write", *self.an_entry())
        for _ in range(looks):
            self.advance(10_000)
        self.database.kill()
        self.advance(1 << 30)
        self.database.start()

    @rule(limit=st.sampled_from([1, 10_000, 1 << 30]))
    def advance(self, limit: int) -> None:
        try:
            self.follower.advance(self.changed, limit)
        except WalUnusable as reason:
            self.unusable = str(reason)

    @rule()
    def keep(self) -> None:
        self.checkpoints.append((self.follower.cursor, digests(self.changed, self.base)))

    @rule(which=st.integers(0, 100))
    def resume(self, which: int) -> None:
        """Go on from any cursor that was kept."""
        cursor, self.base = self.checkpoints[which % len(self.checkpoints)]
        self.follower.close()
        self.open(cursor)

    @precondition(lambda self: hasattr(self, "base"))
    @rule()
    def compare(self) -> None:
        expected = self.database.dump()
        try:
            read_all(self.follower, self.changed, 50_000)
        except WalUnusable as reason:
            assert "is gone" in str(reason) or "a log was missed" in str(reason)
            self.follower.close()
            self.rebase()
            expected = self.database.dump()
            read_all(self.follower, self.changed)
        assert digests(self.changed, self.base) == expected

    def teardown(self) -> None:
        if hasattr(self, "follower"):
            with closing(self.follower):
                self.compare()
        if hasattr(self, "database"):
            self.database.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)


TestMadeLogs = pytest.mark.filterwarnings("error")(MadeLogs.TestCase)
TestMadeLogs.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestKilledServer = KilledServer.TestCase
TestKilledServer.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
