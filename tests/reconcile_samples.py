"""Restored directories for tests of reconcile: a spool, its delivery logs, what a stream saw, at times around NOW."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard
from spool_samples import NOW, write_spool

from kumodr.clock import text_of_time
from kumodr.ledger.evidence import find_evidence
from kumodr.reconcile.plan import Plan, reconcile
from kumodr.reconcile.treatments import Terms
from kumodr.recover.target import MARKER
from kumodr.spool.reader import open_spool

UNTIL = NOW - timedelta(minutes=10)
"""Up to when the spool of a site is complete."""

DISASTER = NOW - timedelta(minutes=5)


def record(
    kind: str, key: bytes, recipients: str | Sequence[str] = "r@b.test", at: datetime = UNTIL, **more: object
) -> dict[str, Any]:
    """Return one record of the delivery log."""
    to = recipients if isinstance(recipients, str) else list(recipients)
    plain = {
        "type": kind,
        "id": key.hex(),
        "sender": "s@a.test",
        "recipient": to,
        "queue": "c:t@b.test",
        "size": 10,
        "response": {"code": 250, "content": "ok"},
        "timestamp": int(at.timestamp()),
        "event_time": text_of_time(at),
        "created_time": text_of_time(at),
        "meta": {},
        "nodeid": "n",
    }
    return {**plain, **more}


def write_log(folder: Path, records: Iterable[Mapping[str, Any]], name: str = "20261124-110000.5") -> Path:
    """Write a finished segment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(zstandard.compress(b"".join(json.dumps(each).encode() + b"\n" for each in records)))
    path.chmod(0o444)
    return path


def site(
    root: Path,
    kind: str,
    meta: Mapping[bytes, bytes],
    data: Mapping[bytes, bytes],
    records: Iterable[Mapping[str, Any]] = (),
    finished: Sequence[bytes] | None = None,
) -> Path:
    """Make a restored directory and return its spool. With `finished` it is one that a stream was replayed to."""
    root.mkdir(parents=True, exist_ok=True)
    write_spool(root / "spool", kind, meta, data)
    components = {name: {"taken": text_of_time(UNTIL)} for name in ("spool", "logs")}
    (root / MARKER).write_text(json.dumps({"components": components}))
    write_log(root / "logs" / "1-kumomta", records)
    if finished is not None:
        (root / "evidence").mkdir()
        (root / "evidence" / "finished.ids").write_bytes(b"".join(finished))
        (root / "evidence" / "evidence.json").write_text(json.dumps({"spool_until": text_of_time(UNTIL)}))
    return root / "spool"


def planned(spool: Path, logs: Sequence[Path] = (), **terms: Any) -> AbstractContextManager[Plan]:
    """Give the plan of a site."""
    asked = Terms(**{"starts": NOW, "disaster": DISASTER, **terms})
    return reconcile(spool / "meta", spool / "data", "auto", find_evidence(spool, logs), asked, lambda *_: None)


def sets_of(plan: Plan) -> dict[str, set[str]]:
    """Return the ids of each treatment that there is."""
    return {name: set(plan.ids(name)) for name, count in plan.counts().items() if count}


def contents(spool: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return metadata and bodies of a spool by id."""
    with open_spool(spool / "meta", spool / "data") as opened:
        return dict(opened.entries()), {each: opened.body(each) for each in opened.body_ids()}
