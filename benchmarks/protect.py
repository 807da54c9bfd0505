"""The loop beside a writer that does to a spool what KumoMTA does: how far behind it is, and what it costs.

`python -m benchmarks.protect SPOOL RATE SECONDS SEED` is that writer: 8 kB bodies, body then metadata, seven messages
of ten leave within half a second, the others stay; RATE 0 is as fast as can be. It prints how many it stored.

How far behind the vault is, is taken from the vault alone: a segment's object has the time at which it was durable, its
head says when its reading began. Between two segments the age of the newest recoverable message grows from the
first's delay to the second's delay plus the time between them; median, 99 in 100 and worst are over all moments.
"""

import heapq
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.mail import messages
from benchmarks.spool import opened
from benchmarks.table import columns, facts
from kumodr.plan.render import render
from kumodr.protect.figures import Figures, published
from kumodr.vault.keys import generate_identity
from kumodr.vault.open import create_vault, open_vault
from kumodr.vault.segment import head_of

REPOSITORY = Path(__file__).resolve().parent.parent
_BODY = 8_000
_PAGES = os.sysconf("SC_CLK_TCK")
_POINTS = 20_000

Speeds = tuple[list[float], list[float]]
"""Messages a second, turn by turn: without the loop, and with it."""


@dataclass(frozen=True)
class Behind:
    """Ages of the newest recoverable message over all moments, in seconds."""

    median: float
    ninety_nine: float
    worst: float


@dataclass(frozen=True)
class Measured:
    """One rate: how far behind, processor time by wall time, peak memory, and bytes accepted and uploaded."""

    rate: int
    seconds: float
    stored: int
    behind: Behind
    share: float
    peak: int
    accepted: int
    uploaded: int
    rebases: int


def run(work: Path, rates: Sequence[int], seconds: float, say: Callable[[str], None]) -> list[Measured]:
    """Given a folder and rates, protect a spool that is written at each, and measure."""
    return [_measured(work / f"round-rate-{rate}", rate, seconds, say) for rate in rates]


def slowdown(work: Path, rounds: int, seconds: float, say: Callable[[str], None]) -> Speeds:
    """Given a folder, write as fast as can be, in turns without and with the loop; return messages a second of each."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for protected in (False, True) if number % 2 == 0 else (True, False):
            folder = work / f"round-speed-{number}-{protected}"
            site = _Site(folder)
            writer = site.write(1, 0.5, 7)
            writer.wait()
            if protected:
                site.protect()
            writer = site.write(0, seconds, 8)
            stored = int(writer.communicate()[0])
            if protected:
                site.end()
            found[protected].append(stored / seconds)
            say(f"{'with' if protected else 'without'} the loop: {stored / seconds:,.0f} messages/s")
            shutil.rmtree(folder)
    return found[False], found[True]


class _Site:
    """A spool, a vault and a plan in a folder, and the loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "spool").mkdir(parents=True)
        create_vault(str(folder / "vault"), [generate_identity().recipient], lambda: datetime.now(UTC))
        values = {
            "version": 1,
            "site": "bench",
            "vault": {"url": str(folder / "vault")},
            "state": str(folder / "state"),
            "components": {"spool": {"meta": str(folder / "spool" / "meta"), "data": str(folder / "spool" / "data")}},
        }
        (folder / "kumodr.yaml").write_text(render(values))
        self._loop: subprocess.Popen[bytes] | None = None

    def write(self, rate: int, seconds: float, seed: int) -> "subprocess.Popen[str]":
        """Start the writer."""
        words = [
            sys.executable,
            "-m",
            "benchmarks.protect",
            str(self.folder / "spool"),
            str(rate),
            str(seconds),
            str(seed),
        ]
        return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)

    def protect(self) -> None:
        """Start the loop, and wait for its base."""
        words = [sys.executable, "-m", "kumodr", "protect", "--plan", str(self.folder / "kumodr.yaml")]
        with (self.folder / "protect.log").open("wb") as log:
            self._loop = subprocess.Popen(words, cwd=REPOSITORY, stdout=log, stderr=log)
        limit = time.monotonic() + 120
        while (figures := published(self.folder / "state")) is None or figures.state != "protected":
            if time.monotonic() > limit or self._loop.poll() is not None:
                raise ValueError(f"the loop does not protect: {(self.folder / 'protect.log').read_text()[-500:]}")
            time.sleep(0.05)

    def processor(self) -> float:
        """Seconds of processor time that the loop took so far, its children's not."""
        fields = Path(f"/proc/{self._running().pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _PAGES

    def peak(self) -> int:
        """The loop's peak resident memory in bytes."""
        text = Path(f"/proc/{self._running().pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) << 10

    def end(self) -> None:
        """End the loop."""
        loop = self._running()
        loop.send_signal(signal.SIGTERM)
        loop.wait(60)

    def figures(self) -> Figures:
        """What the loop says of itself now."""
        found = published(self.folder / "state")
        if found is None:
            raise ValueError("the loop publishes no figures")
        return found

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._loop is None:
            raise ValueError("the loop was not started")
        return self._loop


def _measured(folder: Path, rate: int, seconds: float, say: Callable[[str], None]) -> Measured:
    site = _Site(folder)
    writer = site.write(rate, seconds + 30, 1)
    while not (folder / "spool" / "data" / "CURRENT").exists() or not (folder / "spool" / "meta" / "CURRENT").exists():
        time.sleep(0.05)
    site.protect()
    time.sleep(2)
    before, begun, begun_at = site.processor(), time.monotonic(), time.time()
    figures = site.figures()
    time.sleep(seconds)
    after = site.figures()
    took, share = time.monotonic() - begun, (site.processor() - before)
    ended_at = time.time()
    site_peak = site.peak()
    behind = _behind(folder / "vault", begun_at, ended_at)
    site.end()
    stored = int(writer.communicate()[0])
    result = Measured(
        rate,
        took,
        stored,
        behind,
        share / took,
        site_peak,
        after.accepted_bytes - figures.accepted_bytes,
        after.uploaded_bytes - figures.uploaded_bytes,
        sum(after.rebase_counts.values()) - sum(figures.rebase_counts.values()),
    )
    say(f"{rate} messages/s: {behind.median:.2f} s behind, {100 * result.share:.1f} % of a core")
    shutil.rmtree(folder)
    return result


def _behind(address: Path, begun: float, ended: float) -> Behind:
    """Given a vault and a window, return the ages over all moments of it."""
    vault = open_vault(str(address))
    segments: list[tuple[float, float]] = []
    for path in sorted((address / "stream").rglob("*.seg")):
        if path.parent.name != "rollup":
            head = head_of(path.read_bytes(), str(path.relative_to(address)), vault.id)
            segments.append((path.stat().st_ctime, head.taken.timestamp()))
    segments.sort()
    ages: list[float] = []
    number, newest = 0, 0.0
    for step in range(_POINTS):
        moment = begun + (ended - begun) * step / _POINTS
        while number < len(segments) and segments[number][0] <= moment:
            newest = max(newest, segments[number][1])
            number += 1
        ages.append(moment - newest)
    ages.sort()
    return Behind(statistics.median(ages), ages[len(ages) * 99 // 100], ages[-1])


def section(
    measured: Sequence[Measured], speeds: tuple[list[float], list[float]], machine: dict[str, str], day: str
) -> str:
    """Given what was measured, return the section of the page."""
    wanted = {100: 0.03, 1000: 0.25}
    rows = [
        [
            f"{each.rate:,}",
            f"{each.behind.median:.2f} s",
            f"{each.behind.ninety_nine:.2f} s",
            f"{each.behind.worst:.2f} s",
            f"{100 * each.share:.1f} %",
            f"≤ {100 * wanted[each.rate]:.0f} %" if each.rate in wanted else "",
            f"{each.peak / 2**20:.0f} MiB",
            f"{each.accepted / 1e6:,.1f} MB",
            f"{each.uploaded / 1e6:,.1f} MB",
        ]
        for each in measured
    ]
    without, with_loop = (statistics.median(each) for each in speeds)
    heads = ["messages/s", "median", "99 in 100", "worst", "of a core", "wanted", "peak memory", "accepted", "uploaded"]
    return f"""## Every second: how far behind the vault is, and what it costs

Measured {day} by `script/bench protect`, {measured[0].seconds:.0f} s each; bodies of 8 kB, seven of ten messages leave
within half a second; a vault in a directory, every object synced.

{facts("Machine", machine)}

Age of the newest recoverable message over all moments (wanted: ≤ 1 s median, ≤ 3 s worst at 1,000 messages/s),
processor time of the loop by wall time, its peak memory (wanted: ≤ 200 MiB), bytes accepted and uploaded:

{chr(10).join(columns(heads, rows))}

The writer as fast as can be: {without:,.0f} messages/s without the loop, {with_loop:,.0f} with it
({with_loop / without:.2f} ×; medians of {len(speeds[0])} turns each, on the same two cores)."""


def write(spool: Path, rate: int, seconds: float, seed: int) -> int:
    """Given a spool's folder, write to it as KumoMTA would, and return how many messages were stored."""
    data, meta = opened(spool / "data"), opened(spool / "meta")
    pool = [each for each in messages(4_000_000, 5, datetime.now(UTC)) if len(each.body) >= _BODY][:200]
    bodies = [(each.body[:_BODY], each.meta) for each in pool]
    chance = random.Random(seed)  # noqa: S311 — repeatable
    leaving: list[tuple[float, bytes]] = []
    begun = time.monotonic()
    count = 0
    while (now := time.monotonic() - begun) < seconds:
        while leaving and leaving[0][0] <= now:
            key = heapq.heappop(leaving)[1]
            data.delete(key)
            meta.delete(key)
        if rate and count >= now * rate:
            time.sleep(min(0.002, max(0.0, count / rate - now)))
            continue
        key = chance.randbytes(16)
        body, head = bodies[count % len(bodies)]
        data.put(key, body)
        meta.put(key, head)
        count += 1
        if chance.random() < 0.7:
            heapq.heappush(leaving, (now + chance.uniform(0.02, 0.5), key))
    return count


if __name__ == "__main__":
    stored = write(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(stored) + "\n")
    sys.stdout.flush()
    os._exit(0)
