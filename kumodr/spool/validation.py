"""The examination of a snapshot in a process of its own, beside whatever else is done with the snapshot."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.spool.census import SpoolCensus

LONGEST_ANSWER = 16 << 20
_PATIENCE = 10.0


class Examination:
    """A running examination. `answers` or `wait` once, then `close`; closing early ends it."""

    def __init__(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        # The child makes it: a parent that is killed before the child knows the name must not leave a directory behind.
        self._scratch = Path(tempfile.gettempdir(), f"kumodr-view-{secrets.token_hex(8)}")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kumodr.spool.examine"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
            self._ask({**request, "scratch": str(self._scratch)})
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def _ask(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 — it was asked for
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return

    def answers(self) -> Iterator[Mapping[str, Any]]:
        """Yield each document of the answer; the last one has the key "end".

        Raise the named error that the examination met, or SpoolDamaged where reading the spool ended the process.
        """
        assert self._process.stdout is not None  # noqa: S101 — it was asked for
        while line := self._process.stdout.readline(LONGEST_ANSWER):
            document = json.loads(line)
            if "error" in document:
                raise getattr(errors, document["error"])(document["what"], remedy=document["remedy"])
            if "bug" in document:
                raise RuntimeError(f"in the examining process: {document['bug']}")
            yield document
            if "end" in document:
                return
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise errors.SpoolDamaged(f"reading the spool ended the process that read it ({how})")

    def close(self) -> None:
        """End the process if it still runs, and see that its scratch directory is gone.

        It is asked to end, by the end of its input, and takes the directory away itself: were it killed here, and then
        this process before it had done that, copies of logs would stay.
        """
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)


class Validation:
    """The census of a snapshot, perhaps still being taken."""

    def __init__(self, start: Callable[[], Examination]) -> None:
        self._start = start
        self._examination: Examination | None = None
        self._census: SpoolCensus | None = None

    def begin(self) -> None:
        """Begin to read now, beside whatever else is done."""
        self._examination = self._start()

    def wait(self) -> SpoolCensus:
        """Return the census when it is there; damage is its `problem`. Raise DiskFull."""
        if self._census is None:
            examination = self._examination or self._start()
            try:
                self._census = census_of(next(each for each in examination.answers() if "end" in each)["end"])
            except errors.SpoolDamaged as error:
                self._census = SpoolCensus(problem=error.what, unreadable=(error.what,))
            finally:
                examination.close()
        return self._census


def census_of(document: Mapping[str, Any]) -> SpoolCensus:
    """Given a census as the examining process wrote it, return it."""
    lists = ("without_body", "without_meta", "unreadable")
    values: dict[str, Any] = {**document, **{key: tuple(document[key]) for key in lists}}
    return SpoolCensus(**values)
