"""The demo's story: load under protection, disaster, recovery, and every message accounted for at the sink."""

import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kumodr import errors
from kumodr.cli.terminal import size_text
from kumodr.clock import time_of_text
from kumodr.lab.account import account, sent, taken
from kumodr.lab.options import Options
from kumodr.lab.processes import Process, kill, start, stop
from kumodr.lab.site import Site, adopt, create
from kumodr.protect.figures import Figures, published

_LIMIT = 60.0


@dataclass(frozen=True)
class Back:
    """What the restore brought back: from which base, messages, the time of the state in ns, and until which number."""

    point: str
    messages: int
    until: float
    segments: str


@dataclass(frozen=True)
class Decided:
    """What the evidence said of the recovered messages, before a server was started on them."""

    finished: int
    uncertain: tuple[str, ...]
    put_back: int
    others: int


@dataclass(frozen=True)
class Result:
    """What was measured. Ids are KumoMTA's; times in seconds."""

    accepted: int
    delivered_before: int
    recovered: int
    finished: int
    uncertain: int
    put_back: int
    quarantined: int
    delivered_after: int
    lost: tuple[str, ...]
    lost_although_protected: tuple[str, ...]
    sent_twice: tuple[str, ...]
    time_to_accept: float
    time_to_full: float
    point_age: float
    point: str
    stored_bytes: int
    objectives: dict[str, float]
    left_in_queue: int
    seconds: float = field(default=0.0)

    def document(self) -> dict[str, Any]:
        """Return the JSON facts, every id in full."""
        return asdict(self)


class Story:
    """One run of the demo, in a directory of its own."""

    def __init__(
        self,
        directory: Path,
        kind: Literal["RocksDB", "LocalDisk"],
        kumod: str | None,
        rate: float,
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._lab = directory / "lab"
        self._keys = directory / "far-away"
        self._vault = directory / "vault"
        self._back = directory / "recovered"
        self._options = Options(kind=kind, kumod=kumod, retry_interval=2.0, max_retry_interval=4.0)
        self._rate = rate
        self._seconds = seconds
        self._say = say
        self._protect: Process | None = None
        self._site: Site | None = None
        self._load: Process | None = None

    def run(self) -> Result:
        """Tell it. Whatever happens, no process stays."""
        begun = time.monotonic()
        try:
            site = self._site = self._site_up()
            self._begin_protection()
            self._begin_load(site)
            disaster = self._disaster(site)
            back = self._restored(disaster)
            decided = self._decided(site)
            site = self._site = self._back_up_again()
            accepting = self._until_accepting(site) - disaster
            left, full = self._until_drained(site)
            return self._accounted(back, decided, disaster, accepting, full - disaster, left, begun)
        finally:
            for process in (self._load, self._protect):
                if process is not None:
                    stop(process)
            if self._site is not None:
                self._site.kill()

    def _site_up(self) -> Site:
        server = "a real kumod" if self._options.kumod else "a stand-in for kumod"
        self._say(
            f"a mail site comes up: {server} ({self._options.kind} spool), Redis, Prometheus, a sink for the mail"
        )
        self._lab.mkdir()
        site = create(self._lab, self._options, vault=str(self._vault))
        self._site = site
        site.sink_rules(mode="rules", defer_share=0.3)
        site.start()
        return site

    def _begin_protection(self) -> None:
        self._keys.mkdir(mode=0o700)
        self._kumodr("vault", "init", "--identity-out", str(self._keys / "identity.txt"))
        self._say(
            "the vault is made; its key is far away from the site; `kumodr protect` follows the spool every second"
        )
        words = ["protect", "--plan", str(self._lab / "kumodr.yaml")]
        self._protect = start([sys.executable, "-m", "kumodr", *words], self._lab / "world" / "protect.log")
        deadline = time.monotonic() + _LIMIT
        while (figures := self._figures()) is None or figures.base is None:
            if time.monotonic() > deadline:
                raise errors.LabFailed("kumodr protect took no base", remedy=f"read {self._lab}/world/protect.log")
            time.sleep(0.05)
        self._say(f"{figures.base} is the base; from here on the stream goes on top of it")

    def _figures(self) -> Figures | None:
        return published(self._lab / "site" / "kumodr-state")

    def _begin_load(self, site: Site) -> None:
        self._say(f"mail comes in, {self._rate:.0f} messages a second; the world defers 3 in 10, so a queue builds up")
        words = ["--to", site.smtp, "--record", str(site.world / "load.jsonl"), "--rate", str(self._rate)]
        words += ["--seconds", str(self._seconds + 2), "--size", "6000"]
        self._load = start([sys.executable, "-m", "kumodr.lab.load", *words], site.world / "load.log")
        for _ in range(2):
            time.sleep(self._seconds / 2)
            figures = self._figures()
            if figures is not None and figures.recoverable_until is not None:
                age = time.time() - time_of_text(figures.recoverable_until).timestamp()
                accepted, uploaded = size_text(figures.accepted_bytes), size_text(figures.uploaded_bytes)
                at_risk = "?" if figures.messages_at_risk is None else figures.messages_at_risk
                self._say(
                    f"{figures.state}: all mail up to {age:.1f} s ago can be recovered; {at_risk} "
                    f"messages at risk; {accepted} accepted, {uploaded} uploaded"
                )
        time.sleep(random.uniform(0.0, 1.0))  # a disaster does not wait for a round to end

    def _disaster(self, site: Site) -> float:
        self._say("DISASTER: kill -9 of every process, and the site's directory is gone; mail was still coming in")
        if self._protect is not None:
            kill(self._protect)
        site.kill([name for name in site.names() if name != "sink"])
        disaster = time.time()
        site.wipe()
        return disaster

    def _restored(self, disaster: float) -> Back:
        self._say("on an empty machine, with nothing but the vault's address and the key:")
        words = ["--vault", str(self._vault), "--identity", str(self._keys / "identity.txt"), "--to", str(self._back)]
        report = self._kumodr("restore", *words, plan=False, good=(0, 3))
        spool = next(each for each in report["components"] if each["component"] == "spool")
        stream = report["stream"]
        until = time_of_text(spool["until"]).timestamp()
        segments = f"{stream['first']} to {stream['last']}" if stream else "none"
        messages = int(spool["vetted"]["messages"])
        self._say(
            f"{spool['point']} and segments {segments} are back and vetted: {messages} messages, as of "
            f"{disaster - until:.1f} s before the disaster"
        )
        return Back(spool["point"], messages, until, segments)

    def _decided(self, site: Site) -> Decided:
        """Reconcile the copy; of what the evidence cannot decide, the world is asked before anything is sent."""
        spool = ["--spool", str(self._back / "spool")]
        words = [*spool, "--uncertain", "hold", "--retry-interval", "2s", "--apply"]
        found = self._kumodr("spool", "reconcile", *words, plan=False, good=(0, 3))
        finished, uncertain = found["finished"]["count"], tuple(found["uncertain"]["ids"])
        others = sum(each["count"] for each in found["others"].values())
        self._say(
            f"before a server is started on it, it is reconciled with logs and stream: {finished} are finished, "
            f"{len(uncertain)} uncertain and held back, {others} others put aside"
        )
        arrived = {each.id for each in taken(site.world)}
        missing = [each for each in uncertain if each not in arrived]
        for start_at in range(0, len(missing), 500):
            words = ["put-back", *missing[start_at : start_at + 500], *spool]
            self._kumodr("spool", "quarantine", *words, plan=False)
        if uncertain:
            self._say(
                f"the receiving side is asked about the uncertain ones: {len(missing)} never arrived, and are put back"
            )
        return Decided(finished, uncertain, len(missing), others)

    def _back_up_again(self) -> Site:
        site = adopt(self._lab, self._back)
        self._site = site
        site.start()
        return site

    def _until_accepting(self, site: Site) -> float:
        """Hand in one message and return when it was acknowledged, by the clock."""
        if self._load is not None:
            stop(self._load)
        words = ["--to", site.smtp, "--record", str(site.world / "load-after.jsonl"), "--rate", "0", "--count", "1"]
        command = [sys.executable, "-m", "kumodr.lab.load", *words, "--name", "after"]
        subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT)
        after = [each for each in sent(site.world) if each.load_id.startswith("after")]
        self._say("the new site accepts mail")
        return after[0].acknowledged / 1e9

    def _until_drained(self, site: Site) -> tuple[int, float]:
        """Let the world take everything; return what is left in the queue, and when nothing was left, by the clock."""
        site.sink_rules(mode="accept")
        deadline = time.monotonic() + _LIMIT
        left = -1
        while left != 0 and time.monotonic() < deadline:
            time.sleep(0.1)
            left = _in_queue(site)
        if left == 0:
            self._say("every recovered message has left the queue")
        return left, time.time()

    def _accounted(
        self,
        back: Back,
        decided: Decided,
        disaster: float,
        accepting: float,
        full: float,
        left: int,
        begun: float,
    ) -> Result:
        assert self._site is not None  # noqa: S101 — it was started
        world = self._site.world
        messages = [each for each in sent(world) if not each.load_id.startswith("after")]
        deliveries = [each for each in taken(world) if not each.load_id.startswith("after")]
        sums = account(messages, deliveries)
        at = disaster * 1e9
        ids = {each.load_id: each.ids[0] for each in messages if each.ids}
        before = {each.load_id for each in messages if each.acknowledged < back.until * 1e9}
        objectives = self._kumodr("plan", "show")["objectives"]
        return Result(
            accepted=sums.acknowledged,
            delivered_before=len({each.load_id for each in deliveries if each.time < at} & ids.keys()),
            recovered=back.messages,
            finished=decided.finished,
            uncertain=len(decided.uncertain),
            put_back=decided.put_back,
            quarantined=decided.others,
            delivered_after=len({each.load_id for each in deliveries if each.time >= at} & ids.keys()),
            lost=tuple(ids.get(each, each) for each in sums.missing),
            lost_although_protected=tuple(ids.get(each, each) for each in sums.missing if each in before),
            sent_twice=tuple(ids.get(each, each) for each in sums.duplicates),
            time_to_accept=round(accepting, 3),
            time_to_full=round(full, 3),
            point_age=round(disaster - back.until, 3),
            point=f"{back.point}, segments {back.segments}",
            stored_bytes=sum(path.stat().st_size for path in self._vault.rglob("*") if path.is_file()),
            objectives=objectives,
            left_in_queue=left,
            seconds=round(time.monotonic() - begun, 1),
        )

    def _kumodr(self, *words: str, plan: bool = True, good: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run the command as a user would, and return its document. Raise LabFailed with its sentence."""
        command = [
            sys.executable,
            "-m",
            "kumodr",
            *words,
            *(("--plan", str(self._lab / "kumodr.yaml")) if plan else ()),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KUMODR_IDENTITY")}
        folder = self._lab if plan else self._keys
        done = subprocess.run(
            [*command, "--json"],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=_LIMIT,
            check=False,
        )
        if done.returncode not in good:
            raise errors.LabFailed(
                f"`kumodr {' '.join(words)}` ended with {done.returncode}: {done.stdout or done.stderr}"
            )
        return json.loads(done.stdout)


def _in_queue(site: Site) -> int:
    """Return the messages that the server still has, by its own metrics; -1 where it does not say."""
    try:
        with urllib.request.urlopen(f"{site.http}/metrics.json", timeout=2) as answer:  # noqa: S310 — loopback
            document = json.loads(answer.read())
    except (OSError, ValueError):
        return -1
    queued = int(document.get("scheduled_count_total", {}).get("value", 0))
    ready = document.get("ready_count", {}).get("value", {}).get("service", {})
    resident = int(document.get("message_count", {}).get("value", 0))
    return max(queued, int(sum(ready.values())), resident)
