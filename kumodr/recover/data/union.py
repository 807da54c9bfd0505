"""Join what can be read of the damaged spool with the vault's copy, and lay the evidence of both beside it.

Whole only with its record, which is written last. Without it the result is made again from the two sources, of which
one is only read, and of the other nothing but the logs is moved, each in one rename.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import sync_directory, write_file
from kumodr.ledger.evidence import DESCRIPTION, FINISHED_IDS, FOLDER, finished_keys
from kumodr.recover.data.hold import copy, whole
from kumodr.recover.evidence import FinishedIds
from kumodr.recover.system.scene import Scene
from kumodr.recover.target import MARKER
from kumodr.runbooks.step import Context, Outcome
from kumodr.spool.salvage.salvage import ORIGINS, Salvaged, salvage

LISTS = "lists"
_RECORD = "salvaged.json"
_SHOWN = 50


def is_joined(scene: Scene, context: Context) -> Outcome | None:
    """Return that the spool is sound, or that this run has joined it; or None."""
    sound = whole(context, "spool")
    if sound is not None:
        return sound
    record = scene.work(context.run) / LISTS / _RECORD
    return _outcome(json.loads(record.read_bytes()), record) if record.is_file() else None


def join(scene: Scene, context: Context) -> Outcome:
    """Write the union into this run's directory. Raise StepFailed, and what `salvage` raises."""
    work, restored = scene.work(context.run), copy(scene, context.run)
    filled = (restored / MARKER).is_file() and (restored / "spool").is_dir()
    for name in ("spool", FOLDER):
        shutil.rmtree(work / name, ignore_errors=True)
    for name in (ORIGINS, MARKER):
        (work / name).unlink(missing_ok=True)
    work.mkdir(exist_ok=True, mode=0o700)
    found = salvage(
        scene.meta, scene.data, restored / "spool" if filled else None, work,
        kind=scene.spool.kind, clock=context.clock, progress=context.progress,
    )  # fmt: skip
    try:
        _evidence(restored, work)
        (work / LISTS).mkdir(exist_ok=True, mode=0o700)
        (work / ORIGINS).rename(work / LISTS / ORIGINS)
        document = _document(found, filled)
        write_file(work / LISTS / _RECORD, json.dumps(document, indent=2).encode() + b"\n")
        sync_directory(work / LISTS)
        sync_directory(work)
    except OSError as error:
        raise errors.DiskFull(f"{work} cannot be written: {error.strerror}") from error
    return _outcome(document, work / LISTS / _RECORD)


def _evidence(restored: Path, work: Path) -> None:
    """What the stream saw finished counts with what the damaged spool says; the copy's logs are read from here."""
    ids = restored / FOLDER / FINISHED_IDS
    if ids.is_file():
        own = list(finished_keys(work / FOLDER / FINISHED_IDS))
        with FinishedIds(work) as finished:
            finished.add(own)
            finished.add(finished_keys(ids))
    description = restored / FOLDER / DESCRIPTION
    if description.is_file():
        write_file(work / FOLDER / DESCRIPTION, description.read_bytes())
    for name in ("logs", "ledger"):
        if (restored / name).is_dir():
            (restored / name).rename(work / name)


def _document(found: Salvaged, filled: bool) -> dict[str, Any]:
    return {
        "filled": filled,
        "saved": {
            "messages": found.messages,
            "from_spool": found.from_spool,
            "from_copy": found.from_copy,
            "from_both": found.from_both,
            "without_body": len(found.without_body),
            "without_metadata": len(found.without_metadata),
        },
        "unreadable": [f"{half}: {each.text}" for half, unknown in found.unknown.items() for each in unknown],
    }


def _outcome(document: dict[str, Any], record: Path) -> Outcome:
    saved, unreadable = document["saved"], document["unreadable"]
    text = (
        f"{saved['messages']:,} whole messages: {saved['from_spool']:,} from the damaged spool, "
        f"{saved['from_copy']:,} from the vault, {saved['from_both']:,} with a part from each"
    )
    warnings = () if document["filled"] else ("nothing was filled from the vault: its copy was left out",)
    facts = {"saved": saved, "filled": document["filled"], "unreadable_ranges": len(unreadable)}
    return Outcome(
        "\n".join([text, *(f"  cannot be read: {each}" for each in unreadable[:_SHOWN])]),
        facts | {"unreadable": unreadable[:_SHOWN], "lists": str(record.parent)}, warnings,
    )  # fmt: skip
