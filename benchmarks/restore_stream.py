"""Measure restoring a base with a day of stream on it, beside the base alone.

A day of a site that accepts 100 messages a second, of which one in ten stays, on top of a spool of 10 GB. Each minute
as many of the oldest leave as new ones stay, so that the queue is as long at the end as at the beginning; each message
that left at once has left a tombstone all the same. One in five of those that stay is put off once.
"""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.mail import id_of, messages
from benchmarks.measure import Command, Usage, measure
from benchmarks.table import columns, facts

if TYPE_CHECKING:
    from kumodr.vault.keys import NodeKey
    from kumodr.vault.open import Vault

SINGLES = 60
GOAL = 2.0


@dataclass(frozen=True)
class Day:
    """What was made: `folder/vault` and `folder/key.txt`. Sizes in bytes; `plain` is of bodies and metadata."""

    folder: str
    minutes: int
    rate: int
    body: int
    messages: int
    base_plain: int
    base_sealed: int
    stream_plain: int
    stream_sealed: int
    tombstones: int


@dataclass(frozen=True)
class Sample:
    """One restore: "base" or "stream"."""

    what: str
    usage: Usage


class Mail:
    """Messages by number: an id as KumoMTA makes it, metadata, and a body cut from a stock of text."""

    def __init__(self, seed: int, body: int, begun: datetime, rate: float) -> None:
        self._chance = random.Random(seed)  # noqa: S311 — a seed must give the same mail again
        self._stock = b"".join(each.body for each in messages(8_000_000, seed, begun))
        self._body = body
        self._begun = begun
        self._rate = rate

    def key(self, number: int) -> bytes:
        """Given a message's number, return its id; it was accepted that many intervals after the beginning."""
        return id_of(self._begun + timedelta(seconds=number / self._rate), number)

    def meta(self, number: int, queue: str = "") -> bytes:
        """Given a message's number, return its metadata."""
        return json.dumps(
            {
                "sender": f"news-{number % 97}@sender.test",
                "recipient": f"reader{number}@mail-{number % 211}.test",
                "meta": {"queue": queue or f"mail-{number % 211}.test", "tenant": f"t{number % 13}"},
                "schedule": None,
            }
        ).encode()

    def body(self) -> bytes:
        """Return the bytes of a message, of half to one and a half times the mean size."""
        size = self._body // 2 + self._chance.randrange(self._body)
        at = self._chance.randrange(len(self._stock) - size)
        return self._stock[at : at + size]


def make(folder: Path, size: int, minutes: int, rate: int, body: int, seed: int, say: Callable[[str], None]) -> Day:
    """Given an empty folder, make the vault: the base, roll-ups of a minute each, and the last minute in seconds."""
    from kumodr.vault.keys import NodeKey, generate_identity
    from kumodr.vault.open import create_vault, open_vault
    from kumodr.vault.points import survey

    identity = generate_identity()
    (folder / "key.txt").write_text(identity.secret + "\n")
    stays = rate * 60 // 10
    count = max(size // body, stays * minutes)
    before = timedelta(minutes=count / stays)
    begun = datetime.now(UTC) - before - timedelta(minutes=minutes + 2)
    vault = create_vault(str(folder / "vault"), [identity.recipient], lambda: begun)
    mail = Mail(seed, body, begun, stays / 60)
    say(f"making a base of {count:,} messages")
    plain = base(folder, vault, mail, count, begun + before)
    say(f"making a stream of {minutes:,} minutes")
    key = NodeKey.load_or_create(folder / "state", "bench")
    made = stream(open_vault(str(folder / "vault")), key, mail, count, minutes, rate, begun + before)
    (point,) = survey(vault, {}).points
    sealed = sum(each.size for section in point.sections for each in section.objects)
    streamed = sum(path.stat().st_size for path in (folder / "vault" / "stream").rglob("*.seg"))
    return Day(str(folder), minutes, rate, body, count, plain, sealed, made[0], streamed, made[1])


def base(folder: Path, vault: "Vault", mail: Mail, count: int, taken: datetime) -> int:
    """Make the spool and store it as a base that the stream joins; return its bytes."""
    from benchmarks.spool import opened, settle
    from kumodr.components.spool import SpoolComponent
    from kumodr.plan.model import Components, Plan, SpoolPlan, VaultPlan
    from kumodr.vault.backup import begin_backup
    from kumodr.vault.facts import StreamJoin
    from kumodr.vault.keys import NodeKey

    data, meta = opened(folder / "spool" / "data"), opened(folder / "spool" / "meta")
    plain = 0
    for number in range(count):
        key, body, envelope = mail.key(number), mail.body(), mail.meta(number)
        data[key], meta[key] = body, envelope
        plain += len(body) + len(envelope)
    settle(data)
    settle(meta)
    spool = SpoolPlan(str(folder / "spool" / "meta"), str(folder / "spool" / "data"))
    plan = Plan(version=1, site="bench", vault=VaultPlan(""), state="", components=Components(spool=spool))
    key = NodeKey.load_or_create(folder / "state", "bench")
    with begin_backup(vault, key, folder / "state", lambda: taken, lambda *_: None) as session:
        component = SpoolComponent(plan, lambda: taken)
        with component.capture() as capture:
            session.store("spool", capture)
        session.commit(StreamJoin(1, 1, 1))
    data.close()
    meta.close()
    shutil.rmtree(folder / "spool")
    return plain


def stream(
    vault: "Vault", key: "NodeKey", mail: Mail, count: int, minutes: int, rate: int, begun: datetime
) -> tuple[int, int]:
    """Put the roll-ups and the single segments on a base of `count` messages; return plain bytes and tombstones."""
    from kumodr.vault.segment import Content, Draft, sealed

    stays = rate * 60 // 10
    recipients = vault.public_keys()
    previous: str | None = None
    plain = tombstones = 0
    for first, seconds, last_hash in _spans(minutes):
        meta: dict[bytes, bytes | None] = {}
        data: dict[bytes, bytes | None] = {}
        low, high = ((first - 1 + part) * stays // 60 for part in (0, seconds))
        for number in range(low, high):
            new, old = mail.key(count + number), mail.key(number)
            meta[new], data[new] = mail.meta(count + number), mail.body()
            meta[old] = data[old] = None
            if number % 5 == 0:
                meta[mail.key(number + stays)] = mail.meta(number + stays, "later")
        for number in range(9 * low, 9 * high):
            gone = mail.key(10**8 + number)
            meta[gone] = data[gone] = None
        last = first + seconds - 1
        taken = begun + timedelta(seconds=last)
        draft = Draft(1, first, last, taken, previous, hash=last_hash)
        segment = sealed(draft, Content(meta, data), key, vault.id, recipients)
        vault.store.put_if_absent(segment.name, segment.pieces)
        previous = segment.hash
        plain += sum(len(value) for half in (meta, data) for value in half.values() if value is not None)
        tombstones += sum(value is None for half in (meta, data) for value in half.values())
    return plain, tombstones


def _spans(minutes: int) -> Iterator[tuple[int, int, str | None]]:
    """Yield first number, count of seconds, and the hash that a roll-up ends with: minutes, the last in seconds."""
    for minute in range(minutes - 1):
        yield 60 * minute + 1, 60, f"{minute:064x}"
    for second in range(SINGLES):
        yield 60 * (minutes - 1) + second + 1, 1, None


def run(day: Day, work: Path, rounds: int, say: Callable[[str], None]) -> list[Sample]:
    """Given what was made, restore base alone and base with stream in turn, each a whole process."""
    found: list[Sample] = []
    for number in range(rounds):
        for what, words in (("base", ("bench-1",)), ("stream", ())):
            say(f"round {number + 1}: restoring {what}")
            target = work / f"round-{number}-{what}"
            command = (sys.executable, "-m", "kumodr", "restore", *words, "--to", str(target), "--component", "spool")
            places = ("--vault", f"{day.folder}/vault", "--identity", f"{day.folder}/key.txt", "--json")
            os.sync()
            usage = measure(Command((*command, *places), folder=Path(day.folder)))
            check(target, day, streamed=what == "stream")
            found.append(Sample(what, usage))
            shutil.rmtree(target)
    return found


def check(target: Path, day: Day, *, streamed: bool) -> None:
    """Given a restored directory, raise ValueError where it is not what was made."""
    marker = json.loads((target / "kumodr-restored.json").read_text())
    messages = marker["components"]["spool"]["facts"]["messages"]
    last = (marker["stream"] or {}).get("last")
    wanted = 60 * (day.minutes - 1) + SINGLES if streamed else None
    # The messages of the stream's last second left none behind: as many came as went.
    if messages != day.messages or last != wanted:
        raise ValueError(f"{target} holds {messages} messages and the stream up to {last}")


def section(day: Day, samples: list[Sample], about: Mapping[str, Mapping[str, str]], rounds: int, when: str) -> str:
    """Return the section of the page."""
    rows: list[list[str]] = []
    times: dict[str, float] = {}
    for what, words in (("base", "the base alone"), ("stream", f"base and {day.minutes / 60:g} h of stream")):
        mine = [each.usage for each in samples if each.what == what]
        times[what] = median(each.seconds for each in mine)
        span = f"{min(each.seconds for each in mine):.1f}–{max(each.seconds for each in mine):.1f}"
        cost, peak = median(each.processor for each in mine), max(each.peak for each in mine) / 2**20
        rows.append([words, f"{times[what]:.1f} s", span, f"{cost:.1f} s", f"{peak:.0f} MiB"])
    ratio = times["stream"] / times["base"]
    goal = [
        ["restore with a day of stream", f"≤ {GOAL:g} × base alone", f"{ratio:.2f} ×", "yes" if ratio <= GOAL else "no"]
    ]
    words = (
        f"{day.rate} messages a second, of half to one and a half times {day.body:,} bytes; one in ten stays, the "
        f"others leave within seconds; base of {day.messages:,} messages ({day.base_plain / 1e9:.1f} GB, sealed "
        f"{day.base_sealed / 1e9:.1f} GB); as many of the oldest leave as new ones stay (put "
        f"{day.stream_plain / 1e9:.1f} GB, sealed {day.stream_sealed / 1e9:.1f} GB; {day.tombstones:,} tombstones)"
    )
    lines = [
        "## A day of stream on a base, restored and vetted",
        "",
        f"Measured {when} by `script/bench stream`, median of {rounds}.",
        "",
        f"- Site: {words}",
        f"- Stream: {day.minutes - 1:,} roll-ups of a minute and {SINGLES} single segments of a second",
        *(facts(title, pairs) for title, pairs in about.items()),
        "",
        *columns(("goal", "wanted", "measured", "reached"), goal),
        "",
        *columns(("restore", "time", "range", "processor", "peak memory"), rows),
        "",
    ]
    return "\n".join(lines)


def document(day: Day, samples: list[Sample]) -> dict[str, object]:
    """Return every measurement as JSON values."""
    return {"day": asdict(day), "samples": [asdict(each) for each in samples]}
