"""Follow the write-ahead logs of one live RocksDB database, read-only, across rotation and unlinking.

Why nothing is missed and nothing is invented. The facts were read in RocksDB 8.10.0 (`db/db_impl/db_impl_write.cc`,
`db_impl_open.cc`), the tests run 9.8.4, with KumoMTA's options: one write queue, no pipelined writes, the log flushed
to the system with every write, logs not recycled.

1. *One sequence.* Every write gets the numbers behind the last one and is put into the newest log, first of all; only
   then is it in the database, and only then acknowledged. Numbers are contiguous over all logs. The follower applies a
   record only if its number is the one that is due. So whatever happened to files in between (a log that came and
   went between two looks, that was listed and gone before it was opened, a file that is missing) is a gap at the
   next record, and until a next record comes, the MANIFEST tells it at once: see `manifest.py`. That, and only that,
   is what the MANIFEST is needed for.
2. *Rotation.* `SwitchMemtable` runs as the only writer: it creates the new log when the last write to the old one is
   done. An old log gets no more bytes once a newer one is there. The order here is: look at the MANIFEST, list
   the logs and open each new one (an open descriptor outlives the unlink that follows a flush), then read the log at
   the cursor to its end, then go to the next one that has bytes. An empty newer log is gone to only when the old one
   was unlinked, which holds disk space: a log whose creation failed stays empty, and the old one goes on.
3. *The tail.* Bytes of a log appear in order. A record that is not whole yet, or is cut off, or has only zeros
   behind it, is left for the next time and read anew then; the cursor stands before it. Where a newer log has bytes the
   cut is final: RocksDB does not replay it either, its writer got an error or died, and its number is given to the next
   write. If it was a record after all, the next number shows it.
   A write that failed after its record was whole (a failed sync) was read here, and its number comes again in the
   next log: "came again", a new base.
4. *Restart of the server.* Recovery replays all whole records, which are the ones read here, for the memory of the
   system outlives a process that was killed; it flushes them, counts on from the last number, begins a new log with a
   higher number and unlinks the old ones, which are held here. With damage in the logs it begins the new one
   with an empty batch of the number that is due. So following goes on, and a test kills a server at any moment
   to show it. What a restart may break is caught: the memory of a machine that lost its power (`database.py`), and a
   database that went back to fewer writes: its numbers come again, its logs have lower numbers, or the one
   read is shorter than it was.
5. *Not this database.* Another IDENTITY, another directory, another file of the same name.

Replaying from a cursor before the moment of a base, over this base, gives the state of the end: for every key
the last write wins, and all writes since the base are among those replayed.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from kumodr import errors
from kumodr.protect.wal.batch import HEAD
from kumodr.protect.wal.database import LiveDatabase, Sight, name_of_log, unreadable, why_another
from kumodr.protect.wal.records import WalReader, WalUnusable, last_record
from kumodr.protect.wal.replay import Replay

PIECE = 256 << 10
_LOOKS = 5


@dataclass(frozen=True)
class Cursor:
    """Where following goes on: the database's identity, the log's number, the offset in it, the next sequence number.

    `sequence` may be None where it is not known: then the first record may have any.
    """

    identity: str
    log: int
    offset: int
    sequence: int | None

    def document(self) -> dict[str, Any]:
        """This cursor as JSON values."""
        return {"identity": self.identity, "log": self.log, "offset": self.offset, "sequence": self.sequence}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Cursor":
        """Given what `document` returned, return the cursor. Raise ValueError where it is something else."""
        identity, sequence = document.get("identity"), document.get("sequence", -1)
        log, offset = document.get("log"), document.get("offset")
        if not isinstance(identity, str) or not _is_count(log) or not _is_count(offset):
            raise ValueError("not a position in a write-ahead log")
        if sequence is not None and not _is_count(sequence):
            raise ValueError("not a sequence number")
        return cls(identity, log, offset, sequence)


@dataclass(frozen=True)
class Advance:
    """What was read: bytes of the log, puts and deletes in it, bytes of the values put; `more` is there to be read."""

    bytes: int
    puts: int
    deletes: int
    put_bytes: int
    more: bool


class Follower:
    """Given a database's directory and a cursor, `advance` gives what came since. Close it after use.

    Logs from the cursor on are opened at once and with every look, and held, so that unlinking does not matter. What
    is wrong then is said by the first `advance`.
    """

    def __init__(self, directory: Path, cursor: Cursor) -> None:
        self._directory = directory
        self._identity = cursor.identity
        self._log = cursor.log
        self._offset = cursor.offset
        self._database = LiveDatabase(directory)
        self._held: dict[int, int] = {}
        self._reader = WalReader(cursor.offset)
        self._replay = Replay(cursor.sequence)
        with contextlib.suppress(WalUnusable, errors.SpoolUnreadable):
            self._look()

    @property
    def cursor(self) -> Cursor:
        """Where a new follower would go on: behind everything that was applied."""
        return Cursor(self._identity, self._log, self._offset, self._replay.sequence)

    def advance(self, into: dict[bytes, bytes | None], limit: int) -> Advance:
        """Apply to `into` what was written since: per key the value of the last put, or None for a last delete.

        Reading stops at the end of a record when `limit` bytes of the log were passed; otherwise everything that
        was written before the call is in. Raise WalUnusable with the reason why a new base is due, SpoolUnreadable.
        The cursor moves with every record that is applied, also before an error.
        """
        sight = self._look()
        replay, read, moved = self._replay, 0, True
        puts, deletes, put_bytes = replay.puts, replay.deletes, replay.put_bytes
        try:
            while moved and read < limit:
                read += self._read(into, limit - read)
                moved = read < limit and self._step(sight)
        except OSError as error:
            raise unreadable(self._directory, error) from error
        more = read >= limit and self._unread() > 0
        if not more and replay.sequence is not None and replay.sequence <= sight.last_sequence:
            missing = sight.last_sequence + 1 - replay.sequence
            raise WalUnusable(f"{missing} writes that the MANIFEST tells are in no log: a log was missed")
        return Advance(read, replay.puts - puts, replay.deletes - deletes, replay.put_bytes - put_bytes, more)

    def hold(self) -> None:
        """Open what logs are there now, so that they can be read when they are unlinked; for calling very often."""
        with contextlib.suppress(OSError, errors.SpoolUnreadable):
            for number in self._database.glance():
                self._hold(number)

    def behind(self) -> int:
        """Bytes of logs not read yet, of those there now; what is wrong, if anything, is said by `advance`."""
        with contextlib.suppress(WalUnusable, errors.SpoolUnreadable):
            self._look()
        return self._unread()

    def close(self) -> None:
        """Let go of every log and of the directory."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
        self._database.close()

    def _look(self) -> Sight:
        """Hold every log from the cursor on, and judge whether these are still the logs of the same writes."""
        try:
            return self._looked()
        except OSError as error:
            raise unreadable(self._directory, error) from error

    def _looked(self) -> Sight:
        for _ in range(_LOOKS):
            sight = self._database.look()
            reason = why_another(self._identity, sight.identity)
            if reason is not None:
                raise WalUnusable(reason)
            for number in sight.logs:
                self._hold(number)
            held = self._held.get(self._log)
            if held is None:
                raise WalUnusable(f"the log {name_of_log(self._log)} is gone")
            if not self._database.is_same_log(self._log, held):
                raise WalUnusable(f"another file took the place of the log {name_of_log(self._log)}")
            if os.fstat(held).st_size < self._offset:
                raise WalUnusable(f"the log {name_of_log(self._log)} is shorter than what was read of it")
            # A directory that changes while it is listed may show neither the old log nor the new one.
            if self._log in sight.logs or max(self._held) > self._log:
                return sight
        raise WalUnusable(f"after the log {name_of_log(self._log)} there is no newer one: the database went back")

    def _hold(self, number: int) -> None:
        if number >= self._log and number not in self._held:
            descriptor = self._database.open_log(number)
            if descriptor is not None:
                self._held[number] = descriptor

    def _read(self, into: dict[bytes, bytes | None], limit: int) -> int:
        """Apply what is whole in the log at the cursor, up to `limit` bytes; return how many bytes were passed."""
        descriptor, begin = self._held[self._log], self._offset
        if self._reader.position != begin:
            self._reader = WalReader(begin)
        reader, apply = self._reader, self._replay.apply
        reader.forget_tail()
        stop = begin + limit
        while self._offset < stop and (piece := os.pread(descriptor, PIECE, reader.wanted)):
            with contextlib.closing(reader.feed(piece)) as records:
                for record in records:
                    apply(record, into)
                    self._offset = reader.position
                    if self._offset >= stop:
                        break
        return self._offset - begin

    def _step(self, sight: Sight) -> bool:
        """Go to the next log where the one at the cursor is read through; return whether there is one."""
        newer = sorted(number for number in self._held if number > self._log)
        target = next((number for number in newer if os.fstat(self._held[number]).st_size), None)
        if target is None and newer and self._log not in sight.logs:
            target = newer[0]
        if target is None:
            return False
        for number in [number for number in self._held if number < target]:
            os.close(self._held.pop(number))
        self._log, self._offset, self._reader = target, 0, WalReader()
        return True

    def _unread(self) -> int:
        try:
            sizes = {number: os.fstat(descriptor).st_size for number, descriptor in self._held.items()}
        except OSError as error:
            raise unreadable(self._directory, error) from error
        return sum(sizes.values()) - min(self._offset, sizes.get(self._log, 0))


def start_of(directory: Path) -> Cursor:
    """Given a database's directory, return a cursor at, or a little before, the present.

    A follower that starts there sees everything that is written after this call, and sees again the last record
    before it. Of the logs, blocks of 32 KiB are read backwards from the end, up to the one in which the last record
    begins. Where no log holds a record, every write is in tables, and the MANIFEST tells the number of the last one.
    Raise WalUnusable, SpoolUnreadable.
    """
    database = LiveDatabase(directory)
    try:
        before: Sight | None = None
        for _ in range(_LOOKS):
            sight = database.look()
            found = _last_position(database, sight)
            if found is not None:
                return found
            if sight == before and sight.logs:
                return Cursor(sight.identity, sight.logs[-1], 0, sight.last_sequence + 1)
            before = sight
    except OSError as error:
        raise unreadable(directory, error) from error
    finally:
        database.close()
    raise WalUnusable("the database has no write-ahead log that stays")


def _last_position(database: LiveDatabase, sight: Sight) -> Cursor | None:
    """Where the last record begins that any log holds; None where none does."""
    for number in reversed(sight.logs):
        descriptor = database.open_log(number)
        if descriptor is None:
            continue
        try:
            found = last_record(descriptor, os.fstat(descriptor).st_size, HEAD.size)
        finally:
            os.close(descriptor)
        if found is not None:
            return Cursor(sight.identity, number, found[0], HEAD.unpack_from(found[1])[0])
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
