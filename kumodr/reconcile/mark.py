"""The mark that a restored spool was reconciled: without it `kumodr place` does not put it before a mail server."""

import json
from pathlib import Path

from kumodr.durable import write_file
from kumodr.ledger.evidence import FOLDER

_NAME = "reconciled.json"


def mark_reconciled(meta: Path, *, moved: int, trimmed: int) -> None:
    """Given a half of a restored spool on which a plan was done, write so beside its evidence. Raise OSError."""
    folder = meta.parent.parent / FOLDER
    if folder.is_dir():
        write_file(folder / _NAME, json.dumps({"moved": moved, "recipients_taken_off": trimmed}).encode() + b"\n")


def is_reconciled(directory: Path) -> bool:
    """Given a restored directory, return whether its spool was reconciled."""
    return (directory / FOLDER / _NAME).is_file()
