"""The demo's story: load, backups, disaster, recovery, and every message accounted for at the sink."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kumodr import errors
from kumodr.clock import time_of_text
from kumodr.lab.account import account, sent, taken
from kumodr.lab.options import Options
from kumodr.lab.processes import Process, start, stop
from kumodr.lab.site import Site, adopt, create

_BACKUPS = 3
_LIMIT = 60.0


@dataclass(frozen=True)
class Result:
    """What was measured. Ids are KumoMTA's; times in seconds."""

    accepted: int
    delivered_before: int
    recovered: int
    quarantined: int
    delivered_after: int
    lost: tuple[str, ...]
    lost_although_backed_up: tuple[str, ...]
    sent_twice: tuple[str, ...]
    sent_twice_although_known: tuple[str, ...]
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
        self._options = Options(kind=kind, kumod=kumod, retry_interval=2.0, max_retry_interval=4.0)
        self._rate = rate
        self._seconds = seconds
        self._say = say
        self._quarantined = 0
        self._site: Site | None = None
        self._load: Process | None = None

    def run(self) -> Result:
        """Tell it. Whatever happens, no process stays."""
        begun = time.monotonic()
        try:
            site = self._site = self._site_up()
            self._begin_load(site)
            points = self._backups()
            disaster = self._disaster(site)
            recovered, age = self._restored(disaster)
            site = self._site = self._back_up_again()
            accepting = self._until_accepting(site) - disaster
            left, full = self._until_drained(site)
            return self._accounted(points[-1], disaster, recovered, age, accepting, full - disaster, left, begun)
        finally:
            if self._load is not None:
                stop(self._load)
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

    def _begin_load(self, site: Site) -> None:
        self._say(f"mail comes in, {self._rate:.0f} messages a second; the world defers 3 in 10, so a queue builds up")
        words = ["--to", site.smtp, "--record", str(site.world / "load.jsonl"), "--rate", str(self._rate)]
        words += ["--seconds", str(self._seconds + 2), "--size", "6000"]
        self._load = start([sys.executable, "-m", "kumodr.lab.load", *words], site.world / "load.log")

    def _backups(self) -> list[dict[str, Any]]:
        self._keys.mkdir(mode=0o700)
        self._kumodr("vault", "init", "--identity-out", str(self._keys / "identity.txt"))
        self._say("the vault is made; its key is far away from the site")
        points: list[dict[str, Any]] = []
        pause = self._seconds / (_BACKUPS + 0.5)
        for _number in range(_BACKUPS):
            time.sleep(pause)
            points.append(self._kumodr("backup"))
            spool = points[-1]["components"]["spool"]["facts"]
            self._say(f"{points[-1]['point']}: {spool['messages']} messages in the queue, stored and read back")
        time.sleep(pause / 2)
        return points

    def _disaster(self, site: Site) -> float:
        self._say("DISASTER: kill -9 of every process, and the site's directory is gone; mail was still coming in")
        site.wipe()
        return time.time()

    def _restored(self, disaster: float) -> tuple[int, float]:
        self._say("on an empty machine, with nothing but the vault's address and the key:")
        back = self._lab.parent / "recovered"
        words = ["--vault", str(self._vault), "--identity", str(self._keys / "identity.txt"), "--to", str(back)]
        report = self._kumodr("restore", *words, plan=False, good=(0, 3))
        spool = next(each for each in report["components"] if each["component"] == "spool")
        age = disaster - time_of_text(spool["taken"]).timestamp()
        self._say(f"{spool['point']} is back and vetted: {spool['facts']['messages']} messages, {age:.1f} s old")
        found = self._kumodr("spool", "vet", "--apply", "--spool", str(back / "spool"), plan=False, good=(0, 3))
        reasons = sorted({each["reason"] for each in found["findings"]})
        self._quarantined = len(found["findings"])
        text = f"{self._quarantined} put into quarantine ({', '.join(reasons)})" if reasons else "nothing stands out"
        self._say(f"before a server is started on it, it is vetted: {text}")
        return int(spool["facts"]["messages"]), age

    def _back_up_again(self) -> Site:
        site = adopt(self._lab, self._lab.parent / "recovered")
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
        point: dict[str, Any],
        disaster: float,
        recovered: int,
        age: float,
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
        taken_at = time_of_text(point["taken"]).timestamp() * 1e9
        ids = {each.load_id: each.ids[0] for each in messages if each.ids}
        before_point = {each.load_id for each in messages if each.acknowledged < taken_at}
        finished_before = {each.load_id for each in deliveries if each.time < taken_at - 1e9}
        objectives = self._kumodr("plan", "show")["objectives"]
        return Result(
            accepted=sums.acknowledged,
            delivered_before=len({each.load_id for each in deliveries if each.time < at} & ids.keys()),
            recovered=recovered,
            quarantined=self._quarantined,
            delivered_after=len({each.load_id for each in deliveries if each.time >= at} & ids.keys()),
            lost=tuple(ids.get(each, each) for each in sums.missing),
            lost_although_backed_up=tuple(ids.get(each, each) for each in sums.missing if each in before_point),
            sent_twice=tuple(ids.get(each, each) for each in sums.duplicates),
            sent_twice_although_known=tuple(ids.get(each, each) for each in sums.duplicates if each in finished_before),
            time_to_accept=round(accepting, 3),
            time_to_full=round(full, 3),
            point_age=round(age, 3),
            point=point["point"],
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
