"""What a standby remembers, durably: which state directory is the current one, and how far the stream is in it."""

import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import sync_directory, write_file

NAME = "standby.json"
FOLDER = ".standby"
"""Everything lies below this until promotion: nothing in the directory can be taken for a spool to start on."""


@dataclass(frozen=True)
class Progress:
    """`state` is the directory's name below FOLDER. `applied` is the last number of `epoch` that is wholly in it, and
    `hash` of its head; epoch 0 where no stream goes on from the base. Times are text, as in the vault.

    `dirty` means that what follows `applied` may be in it in part: doing it again makes it whole. `promoting` is set
    when nothing more will be applied. `sections` says by component what was fetched, for the marker; `notes` what the
    logs lack.
    """

    vault: str
    node: str
    state: str
    base: str
    epoch: int
    first: int
    applied: int
    hash: str | None
    taken: str
    logs_taken: str | None
    segments: int
    rollups: int
    dirty: bool
    promoting: bool
    written: str
    sections: dict[str, dict[str, Any]]
    notes: list[str]


def load(target: Path) -> Progress | None:
    """Given a standby's directory, return its progress, None where there is none. Raise StandbyDamaged."""
    path = target / FOLDER / NAME
    try:
        return Progress(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise errors.StandbyDamaged(f"{path} cannot be read: {error}") from error


def save(target: Path, progress: Progress) -> None:
    """Given the progress, write it durably: it counts from then on."""
    write_file(target / FOLDER / NAME, json.dumps(asdict(progress), indent=1).encode() + b"\n")


@contextmanager
def locked(target: Path) -> Generator[None]:
    """Given a standby's directory, made where it is not there, hold its lock. Raise AnotherRun."""
    (target / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
    sync_directory(target)
    descriptor = os.open(target / FOLDER / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.AnotherRun(
                f"another standby is running in {target}", remedy="stop it (it can be stopped at any moment) first"
            ) from None
        yield
    finally:
        os.close(descriptor)
