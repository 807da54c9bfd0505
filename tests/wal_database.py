"""A real RocksDB database in a process of its own, that writes what it is told and can be killed at any moment."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from kumodr.protect.wal.follow import Follower
from kumodr.protect.wal.records import WalUnusable

BUFFER = 64 << 10
_PROCESS = """
import hashlib, json, sys, threading
from random import Random
from rocksdict import Options, Rdict, WriteBatch, WriteOptions

path, buffer, compact = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "compact"
def opened():
    options = Options(raw_mode=True)
    options.set_write_buffer_size(buffer)
    options.set_paranoid_checks(False)
    options.set_level_zero_file_num_compaction_trigger(2 if compact else 1000)
    return Rdict(path, options)
def value(seed, size):
    return Random(seed).randbytes(size)
def put_or_delete(target, number, seed, size):
    key = number.to_bytes(16, "big")
    target.delete(key) if seed is None else target.put(key, value(seed, size))
database = opened()
print("open", flush=True)
for line in sys.stdin:
    verb, *words = json.loads(line)
    answer = True
    if verb == "write":
        put_or_delete(database, *words)
    elif verb == "batch":
        batch = WriteBatch(raw_mode=True)
        for each in words:
            put_or_delete(batch, *each)
        database.write(batch)
    elif verb == "range":
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(bytes(16), b"\\xff" * 16)
        database.write(batch)
    elif verb == "unlogged":
        options = WriteOptions()
        options.disable_wal = True
        database.put(b"u" * 16, b"unlogged", write_opt=options)
    elif verb == "together":
        def writes(part, count, size):
            for number in range(count):
                put_or_delete(database, number % 50, None if number % 4 == 3 else part * count + number, size)
        parts = [threading.Thread(target=writes, args=(part, *words[1:])) for part in range(words[0])]
        for part in parts:
            part.start()
        for part in parts:
            part.join()
    elif verb == "flush":
        database.flush(True)
    elif verb == "reopen":
        database.close()
        database = opened()
    elif verb == "close":
        database.close()
    elif verb == "dump":
        answer = {key.hex(): hashlib.sha256(bytes(value)).hexdigest() for key, value in database.items()}
    elif verb == "sequence":
        answer = database.latest_sequence_number()
    print(json.dumps(answer), flush=True)
"""


class WalDatabase:
    """A database at a path; `tell` gives a command and waits, `send` does not wait for the answer."""

    def __init__(self, path: Path, *, buffer: int = BUFFER, compact: bool = True) -> None:
        self.path = path
        self._words = [str(path), str(buffer), "compact" if compact else ""]
        self._unanswered = 0
        self._process = self._started()

    def tell(self, verb: str, *words: Any) -> Any:
        self.send(verb, *words)
        return self.wait()

    def send(self, verb: str, *words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, *words]) + "\n")
        self._process.stdin.flush()
        self._unanswered += 1

    def wait(self) -> Any:
        """Wait for every answer and return the last."""
        answer: Any = None
        while self._unanswered:
            answer = self._line()
            self._unanswered -= 1
        return answer

    def put(self, number: int, seed: int, size: int = 100) -> None:
        self.tell("write", number, seed, size)

    def delete(self, number: int) -> None:
        self.tell("write", number, None, 0)

    def dump(self) -> dict[str, str]:
        """Every key in hexadecimal with the SHA-256 of its value."""
        return self.tell("dump")

    def kill(self) -> None:
        """End the process by SIGKILL, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue
        self._unanswered = 0

    def start(self) -> None:
        """Start again after `kill`."""
        self._process = self._started()

    def _started(self) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", _PROCESS, *self._words]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "open"
        return self._process

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the database's process ended"
        return json.loads(line) if line != "open\n" else "open"


def value(seed: int, size: int = 100) -> bytes:
    """What the process puts for a seed and a size."""
    return Random(seed).randbytes(size)


def digests(changed: Mapping[bytes, bytes | None], base: Mapping[str, str] | None = None) -> dict[str, str]:
    """A base with changes applied, as `dump` gives it."""
    state = dict(base or {})
    for key, content in changed.items():
        if content is None:
            state.pop(key.hex(), None)
        else:
            state[key.hex()] = hashlib.sha256(content).hexdigest()
    return state


def read_all(follower: Follower, into: dict[bytes, bytes | None], limit: int = 1 << 20) -> int:
    """Advance until nothing is left; return how many entries were read."""
    entries = 0
    while True:
        advance = follower.advance(into, limit)
        entries += advance.puts + advance.deletes
        if not advance.more:
            return entries


def why_unusable(follower: Follower) -> str:
    """Advance until it is refused, and return the reason."""
    for _ in range(100):
        try:
            follower.advance({}, 1 << 20)
        except WalUnusable as reason:
            return str(reason)
    raise AssertionError("it was not refused")


def untouched(folder: Path) -> Sequence[tuple[str, int, int, int]]:
    """Name, size, time of change and inode of every file in a folder."""
    found = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return [(name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found]
