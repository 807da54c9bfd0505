"""What a command says: the result on standard output, everything else on standard error.

With `--json` standard output is one document and nothing else. Progress is a live line on a terminal and
silent elsewhere. Colour only on a terminal, and never with NO_COLOR.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kumodr import errors


class Terminal:
    """The two streams of one command."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._live = sys.stderr.isatty() and not json
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._drawn = 0.0

    @property
    def is_live(self) -> bool:
        """Whether what is shown on standard error can be drawn anew."""
        return self._live

    def result(self, document: Mapping[str, Any], lines: Iterable[str] = ()) -> None:
        """Given the result both ways, print the document with `--json`, the lines otherwise."""
        self.clear()
        text = json.dumps(document, indent=2, default=str) if self.json else "\n".join(lines)
        if text:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print one line for the person at the terminal, on standard error."""
        self.clear()
        sys.stderr.write(text + "\n")

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far long work is: `done` of `total` (0 when unknown), a live line that is overwritten."""
        now = time.monotonic()
        if not self._live or (now - self._drawn < 0.1 and done != total):
            return
        self._drawn = now
        share = f" {100 * done // total}%" if total else ""
        sys.stderr.write(f"\r\x1b[K{what}{share} ({size_text(done)}{' of ' + size_text(total) if total else ''})")
        sys.stderr.flush()

    def live(self, text: str) -> None:
        """Show how something that goes on stands: a line that is overwritten on a terminal, nothing elsewhere."""
        if self._live:
            self._drawn = time.monotonic()
            width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
            sys.stderr.write(f"\r\x1b[K{text[:width]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the live line away."""
        if self._live and self._drawn:
            sys.stderr.write("\r\x1b[K")
            self._drawn = 0.0

    def failure(self, error: errors.KumodrError) -> None:
        """Print why the command failed: a sentence, or with `--json` a document on standard output."""
        self.clear()
        if self.json:
            mistakes = list(error.mistakes) if isinstance(error, errors.PlanInvalid) else []
            document = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            sys.stdout.write(json.dumps(document | ({"mistakes": mistakes} if mistakes else {}), indent=2) + "\n")
            return
        if isinstance(error, errors.PlanInvalid):
            for mistake in error.mistakes:
                sys.stderr.write(f"  {mistake}\n")
        sys.stderr.write(f"kumodr: {error}\n")

    def strong(self, text: str) -> str:
        """Return the text in bold where colour is right."""
        return f"\x1b[1m{text}\x1b[0m" if self._colour else text

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
        """Given rows of text, return aligned lines with a head; columns in `right` are aligned right."""
        widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
        to_right = set(right)

        def line(row: Sequence[str]) -> str:
            cells = [
                cell.rjust(width) if column in to_right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        return [self.strong(line(heads)), *(line(row) for row in rows)]


def size_text(size: float) -> str:
    """Given bytes, return them as a person reads them: `4.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age_text(seconds: float) -> str:
    """Given seconds, return them as a person reads them: `4 min`, `2 h 10 min`, `2 h ahead` where a clock is wrong."""
    if seconds <= -1:
        return f"{age_text(-seconds)} ahead"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def write_trace() -> str:
    """Write the trace of the exception being handled to the log file and return that file's name."""
    import traceback

    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "kumodr"
    path = folder / "kumodr.log"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as log:
            log.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n{traceback.format_exc()}\n")
    except OSError as error:
        return f"the trace (it could not be written to {path}: {error.strerror})"
    return str(path)
