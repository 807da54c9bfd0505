"""One trial: a mail server under load, snapshots of its spool, and kill -9 at a random instant.

The judge: every message that was acknowledged before a snapshot began, and that nobody took or refused before the
snapshot ended, must be in the snapshot: its metadata and its body, with the right bytes. Who took it is asked of the
sink, whose index is written before it acknowledges; so a message without a line there had not left.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from kumodr import errors
from kumodr.lab.account import Sent, Taken, sent, taken
from kumodr.lab.site import Site
from kumodr.spool.snapshot import SpoolSnapshot, snapshot

Between = Callable[[], None]


@dataclass
class Tally:
    """What trials found. Times in seconds."""

    kills: int = 0
    snapshots: int = 0
    judged: int = 0
    absent: list[str] = field(default_factory=list[str])
    body_lost: list[str] = field(default_factory=list[str])
    body_wrong: list[str] = field(default_factory=list[str])
    damaged: list[str] = field(default_factory=list[str])
    retries: int = 0
    took: list[float] = field(default_factory=list[float])

    @property
    def losses(self) -> list[str]:
        """Everything that must not happen, one sentence each."""
        kinds = {
            "absent": self.absent,
            "body lost": self.body_lost,
            "body wrong": self.body_wrong,
            "damaged": self.damaged,
        }
        return [f"{kind}: {each}" for kind, found in kinds.items() for each in found]


@dataclass(frozen=True)
class Seen:
    """What one snapshot held: ids with metadata, and the bodies' hashes by id. Times in ns since 1970."""

    begun: int
    ended: int
    meta: frozenset[str]
    bodies: dict[str, str]


def look(
    site: Site, tally: Tally, *, order: Sequence[str] = ("meta", "data"), meanwhile: Between | None = None
) -> Seen | None:
    """Given a site, snapshot its spool and read everything in it; None where the spool was gone or never held still.

    `meanwhile` runs while the snapshot is held, before it is read.
    """
    spool = site.root / "spool"
    begun, clock = time.time_ns(), time.monotonic()
    try:
        with snapshot(spool / "meta", spool / "data", order=order) as held:
            took = time.monotonic() - clock
            ended = time.time_ns()
            if meanwhile is not None:
                meanwhile()
            meta, bodies = _read(held)
    except errors.SpoolDamaged as error:
        tally.damaged.append(error.what)
        return None
    tally.snapshots += 1
    tally.retries += held.retries
    tally.took.append(took)
    return Seen(begun, ended, meta, bodies)


def judge(seen: Seen, messages: Sequence[Sent], deliveries: Sequence[Taken], tally: Tally) -> None:
    """Given what a snapshot held and what the world knows, add to the tally whatever is missing."""
    finished = {each.load_id for each in deliveries if each.time <= seen.ended}
    hashes = {each.id: each.sha256 for each in deliveries}
    for message in messages:
        if message.acknowledged > seen.begun or message.load_id in finished:
            continue
        for key in message.ids:
            tally.judged += 1
            if key not in seen.meta:
                tally.absent.append(key)
            elif key not in seen.bodies:
                tally.body_lost.append(key)
            elif key in hashes and hashes[key] != seen.bodies[key]:
                tally.body_wrong.append(key)


def kill_at_random(site: Site, chance: random.Random, longest: float) -> threading.Thread:
    """Given a running site, kill its mail server after a random time of up to `longest` seconds, on a thread."""

    def wait_and_kill() -> None:
        time.sleep(chance.uniform(0, longest))
        site.kill(["kumod"])

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def run_trial(site: Site, chance: random.Random, tally: Tally, *, snapshots: int, longest: float) -> None:
    """Given a site under load, take snapshots around a kill -9, and judge them all."""
    killer = kill_at_random(site, chance, longest)
    seen: list[Seen] = []
    for _number in range(snapshots):
        time.sleep(chance.uniform(0, longest / snapshots))
        found = look(site, tally)
        if found is not None:
            seen.append(found)
    killer.join()
    tally.kills += 1
    found = look(site, tally)
    if found is not None:
        seen.append(found)
    messages, deliveries = sent(site.world), taken(site.world)
    for each in seen:
        judge(each, messages, deliveries, tally)


def _read(held: SpoolSnapshot) -> tuple[frozenset[str], dict[str, str]]:
    """Return what a snapshot holds, read through a scratch view."""
    with TemporaryDirectory(prefix="kumodr-trial-") as folder:
        Path(folder).chmod(0o700)
        readers = held.readers(Path(folder))
        try:
            meta = frozenset(key.hex() for key in readers["meta"].ids())
            bodies = {key.hex(): hashlib.sha256(body).hexdigest() for key, body in readers["data"].entries()}
        finally:
            for reader in readers.values():
                reader.close()
    return meta, bodies
