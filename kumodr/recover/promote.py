"""Make a standby the restored state that it stands by to be: in its place, vetted, with evidence and marker.

Each step may be repeated. From the first on nothing more of the stream is applied; the marker comes last.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from struct import iter_unpack
from typing import Any

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.components.protocol import Verdict
from kumodr.durable import remove_unfinished, sync_directory, write_file
from kumodr.ledger.evidence import DESCRIPTION, FINISHED_IDS, finished_keys
from kumodr.ledger.evidence import FOLDER as EVIDENCE
from kumodr.recover import standbyfile
from kumodr.recover.evidence import FinishedIds, write_evidence
from kumodr.recover.halves import open_half_of_copy
from kumodr.recover.journal import PARTS, Journal, Words, part_of
from kumodr.recover.restore import Vetter
from kumodr.recover.standby import FINISHED_LOG, until
from kumodr.recover.standbyfile import FOLDER
from kumodr.recover.standbyfile import Progress as Standing
from kumodr.recover.target import MARKER
from kumodr.spool.identifier import LENGTH
from kumodr.vault.fetch import written_to
from kumodr.vault.segment import PackedChanges


def promote(target: Path, vetters: Mapping[str, Vetter], clock: Clock) -> tuple[Standing, dict[str, Verdict]]:
    """Given a standby's directory, which nothing applies to any more, promote it; return how it stood and the verdicts.

    Raise StandbyMissing, UsageWrong where a segment is applied in part, ComponentDamaged where it is not good.
    """
    standing = standbyfile.load(target)
    if standing is None:
        raise errors.StandbyMissing(f"there is no standby in {target}")
    if standing.dirty:
        raise errors.StandbyDamaged(
            f"the standby in {target} was killed, and its last segment is applied in part",
            remedy="run this again when the vault can be reached: it finishes that segment first",
        )
    place = target / FOLDER / standing.state
    with written_to(target):
        if not standing.promoting:
            write_finished(place)
            standing = replace(standing, promoting=True)
            standbyfile.save(target, standing)
        for name in (*standing.sections, EVIDENCE):
            if (place / name).exists():
                (place / name).rename(target / name)
        sync_directory(target)
    verdicts = {name: vetters[name](target / name) if name in vetters else Verdict(None) for name in standing.sections}
    bad = [f"{name}: {verdict.problem}" for name, verdict in verdicts.items() if verdict.problem]
    if bad:
        raise errors.ComponentDamaged(f"promoted to {target}, but not good: {'; '.join(bad)}")
    with written_to(target):
        remove_unfinished(target / MARKER)
        for name in (DESCRIPTION, FINISHED_IDS):
            remove_unfinished(target / EVIDENCE / name)
        spool_until, logs_until = until(standing)
        write_evidence(target, standing.base, spool_until, logs_until, stream_document(standing))
        mark(target, standing, verdicts, clock)
        shutil.rmtree(target / FOLDER)
    return standing, verdicts


def was_promoted(target: Path) -> bool:
    """Given a directory, return whether a promotion had reached its end; what it left lying about is taken away."""
    if not (target / MARKER).exists() or not (target / FOLDER).is_dir():
        return False
    shutil.rmtree(target / FOLDER)
    return True


def write_finished(place: Path) -> None:
    """Given a state directory, write the ids that the stream deleted, and that are not there again, each once."""
    journal = Journal(place / "finished.journal")
    try:
        half = open_half_of_copy(place / "spool" / "meta", place / "meta.engine")
        try:
            log = place / FINISHED_LOG
            if log.exists():
                with log.open("r+b") as file:
                    file.truncate(file.seek(0, 2) // LENGTH * LENGTH)
            for piece in finished_keys(log) if log.exists() else ():
                journal.note(PackedChanges(b"".join(sorted(each for (each,) in iter_unpack("16s", piece))), {}))
            with FinishedIds(place) as finished:
                absent(journal.words(), (key for key, _ in half.entries()), finished.add)
            half.finish()
        finally:
            half.close()
    finally:
        journal.close()


def absent(noted: Words, keys: Iterable[bytes], add: Any) -> None:
    """Given what was deleted and the keys that are there, in order, tell `add` those that are not there."""
    following = iter(keys)
    key = next(following, None)
    for part in range(PARTS):
        words = noted.of_part(part)
        while key is not None and (len(key) != LENGTH or part_of(key) <= part):
            words.pop(key, None)
            key = next(following, None)
        add(words)


def stream_document(standing: Standing) -> dict[str, Any] | None:
    """Given how a standby stood, return what marker and evidence say of the stream."""
    if not standing.epoch:
        return None
    return {
        "epoch": standing.epoch,
        "first": standing.first,
        "last": standing.applied,
        "segments": standing.segments,
        "rollups": standing.rollups,
        "taken": standing.taken,
    }


def mark(target: Path, standing: Standing, verdicts: Mapping[str, Verdict], clock: Clock) -> None:
    """Given a directory whose components are good, write the marker that says so, as a restore does."""
    spool_until, logs_until = until(standing)
    ends = {"spool": text_of_time(spool_until), "logs": text_of_time(logs_until) if logs_until else None}
    document = {
        "restored": text_of_time(clock()),
        "stream": stream_document(standing),
        "components": {
            name: {each: section[each] for each in ("point", "taken", "files", "size")}
            | {
                "until": ends.get(name),
                "facts": dict(verdicts[name].facts),
                "imperfections": imperfections(name, standing, verdicts[name]),
            }
            for name, section in standing.sections.items()
        },
    }
    write_file(target / MARKER, json.dumps(document, indent=2).encode() + b"\n")


def imperfections(name: str, standing: Standing, verdict: Verdict) -> list[str]:
    """Given a component, how the standby stood and the examination, return what is not as it was, a sentence each."""
    links = [f"link {path} leads outside and was not made" for path in standing.sections[name]["links"]]
    return [*verdict.warnings, *links, *(standing.notes if name == "logs" else ())]
