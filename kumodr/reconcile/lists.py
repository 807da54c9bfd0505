"""The lost and the uncertain list as files, for customers, injectors and spreadsheets: CSV and JSON, mode 0600.

A CSV cell that a spreadsheet would take for a formula begins with an apostrophe: addresses are other people's text.
"""

import csv
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.durable import sync_directory
from kumodr.reconcile.plan import Lost, Plan, Uncertain

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_lists(plan: Plan, directory: Path) -> tuple[Path, ...]:
    """Given a plan and a directory, write `uncertain` and `lost` there, each as CSV and JSON; return the files.

    Each is whole or not there, and replaces one of an earlier run. Raise DiskFull.
    """
    lists: tuple[tuple[str, type, Callable[[], Iterator[Any]]], ...] = (
        ("uncertain", Uncertain, plan.uncertain),
        ("lost", Lost, plan.lost),
    )
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, shape, rows in lists:
            heads = [each.name for each in fields(shape)]
            with _new(directory / f"{name}.csv") as file:
                write_csv(file, heads, (asdict(each) for each in rows()))
            with _new(directory / f"{name}.json") as file:
                write_json(file, (document(each) for each in rows()))
            written += [directory / f"{name}.csv", directory / f"{name}.json"]
        sync_directory(directory)
    except OSError as error:
        raise errors.DiskFull(f"{directory} cannot be written: {error.strerror or error}") from error
    return tuple(written)


def document(each: Uncertain | Lost) -> dict[str, Any]:
    """Given a row of a list, return it as JSON values."""
    return {key: text_of_time(value) if isinstance(value, datetime) else value for key, value in asdict(each).items()}


def write_csv(file: IO[str], heads: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Given an open file, write a head and rows; several recipients stand in one cell, with semicolons."""
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(heads)
    for row in rows:
        writer.writerow([_cell(row[head]) for head in heads])


def write_json(file: IO[str], documents: Iterable[dict[str, Any]]) -> None:
    """Given an open file, write a list of documents, one a line, as they come."""
    file.write("[")
    for number, each in enumerate(documents):
        file.write(("," if number else "") + "\n" + json.dumps(each))
    file.write("\n]\n")


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return text_of_time(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "; ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


@contextmanager
def _new(path: Path) -> Generator[IO[str]]:
    """Give a file that takes its name, durably, when it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
