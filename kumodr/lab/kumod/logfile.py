"""Delivery log segments: one zstd frame of JSON lines each, read-only when finished (facts §3.2)."""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard


class SegmentLog:
    """Given a directory, append records. A segment is opened by its first record and never flushed before its end.

    What zstd has not given out when the process is killed is lost, and the segment is cut, as with a real server.
    """

    def __init__(self, directory: Path, max_size: int, max_duration: float | None, now_ns: Callable[[], int]) -> None:
        self._directory = directory
        self._max_size = max_size
        self._max_duration = max_duration
        self._now_ns = now_ns
        self._frame: Any = None
        self._descriptor = -1
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.iterdir():
            if left.is_file() and not left.name.startswith("."):
                left.chmod(left.stat().st_mode & ~0o222)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        frame: Any = self._frame or self._open()
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        self._size += len(line)
        if out := frame.compress(line):
            os.write(self._descriptor, out)
        if self._size >= self._max_size:
            self.finish()

    def finish(self) -> None:
        """End the open segment, if there is one, and take its write bits away."""
        if self._frame is None:
            return
        os.write(self._descriptor, self._frame.flush())
        os.fchmod(self._descriptor, os.fstat(self._descriptor).st_mode & ~0o222)
        os.close(self._descriptor)
        self._frame = None
        if self._timer is not None:
            self._timer.cancel()

    def _open(self) -> Any:
        nanoseconds = self._now_ns()
        moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
        path = self._directory / f"{moment:%Y%m%d-%H%M%S}.{nanoseconds % 10**9:09d}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._frame = zstandard.ZstdCompressor().compressobj()
        self._size = 0
        if self._max_duration is not None:
            self._timer = asyncio.get_running_loop().call_later(self._max_duration, self.finish)
        return self._frame
