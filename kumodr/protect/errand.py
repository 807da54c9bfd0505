"""A child process that stores a point for the loop, watched without waiting for it."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Wanted:
    """What the point shall hold; `epoch` and `begin` where a stream goes on from it."""

    components: tuple[str, ...]
    epoch: int | None = None
    begin: int | None = None

    @property
    def is_base(self) -> bool:
        """Whether a stream goes on from it."""
        return self.epoch is not None


class Errand:
    """One running child. `answers` gives what it said since the last look; `close` ends it."""

    def __init__(self, plan: Path, wanted: Wanted) -> None:
        self.wanted = wanted
        self.begun = time.monotonic()
        self.whole: int | None = None
        self._answers: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kumodr.protect.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101 — asked for
        self._input: IO[bytes] = self._process.stdin
        self._last_words = b""
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        threading.Thread(target=self._overhear, args=(self._process.stderr,), daemon=True).start()
        stream = {"epoch": wanted.epoch, "begin": wanted.begin} if wanted.is_base else None
        self._tell({"plan": str(plan), "components": list(wanted.components), "stream": stream})

    def answer_held(self, whole: int) -> None:
        """Given the number of the first segment whose reading begins now or later, let the child commit."""
        self.whole = whole
        self._tell({"whole": whole})

    def answers(self) -> Sequence[Mapping[str, Any]]:
        """Return the documents that came; the last one of a child that ended has "point" or "error"."""
        found: list[Mapping[str, Any]] = []
        while True:
            try:
                answer = self._answers.get_nowait()
            except queue.Empty:
                return found
            if answer is None:
                status = self._process.wait()
                if not any("point" in each or "error" in each for each in found):
                    words = self._last_words.decode("utf-8", "replace").strip().splitlines()[-1:]
                    what = f"the process that stores a point ended with status {status} {' '.join(words)}".strip()
                    found.append({"error": {"name": "", "what": what, "remedy": ""}})
                return found
            found.append(answer)

    def close(self) -> None:
        """End the child where it still runs; what it did not commit does not count."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                continue

    def _tell(self, document: Mapping[str, Any]) -> None:
        try:
            self._input.write(json.dumps(document).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            return

    def _listen(self, stream: IO[bytes]) -> None:
        ended = False
        for line in stream:
            try:
                document = json.loads(line)
            except ValueError:
                continue
            ended = ended or "point" in document or "error" in document
            self._answers.put(document)
        if not ended:
            self._answers.put(None)

    def _overhear(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._last_words = line
