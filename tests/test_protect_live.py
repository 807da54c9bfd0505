"""`kumodr protect` as a process beside a mail server under load, both killed at random; what the vault gives is judged.

KUMODR_TRIALS sets how many kills there are for each kind of spool, KUMODR_TEST_KUMOD a real mail server.
"""

import json
import os
import random
import re
import shutil
import smtplib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from live import Live
from servers import prometheus_server, redis_server, wait_for
from streams import content
from test_trials import load
from wal_database import WalDatabase

from kumodr.lab import trial
from kumodr.lab.account import Sent, sent, taken
from kumodr.lab.options import Options
from kumodr.lab.processes import stop
from kumodr.lab.site import Site, create, plan_values
from kumodr.lab.trial import Seen, Tally, judge

KILLS = int(os.environ.get("KUMODR_TRIALS", "5"))
LONGEST = 1.2


@pytest.fixture(params=["RocksDB", "LocalDisk"])
def site(request: pytest.FixtureRequest, lab_options: Options, tmp_path: Path) -> Iterator[Site]:
    kind: Literal["RocksDB", "LocalDisk"] = request.param
    options = replace(lab_options, kind=kind, retry_interval=1.0, max_retry_interval=3.0)
    if kind == "RocksDB":
        options = replace(options, write_buffer_size=64 << 10)  # logs turn all the time
    made = create(tmp_path / "lab", options)
    made.sink_rules(mode="rules", defer_share=0.3)
    made.start(["sink", "kumod"])
    yield made
    made.kill()


@pytest.fixture
def live(site: Site, tmp_path: Path) -> Iterator[Live]:
    made = Live(tmp_path, plan_of(site, tmp_path, {"every": 0.2}))
    yield made
    made.end()


def plan_of(site: Site, folder: Path, protect: Mapping[str, Any]) -> dict[str, Any]:
    return {**plan_values(site, str(folder / "vault")), "protect": dict(protect)}


def several_recipients(site: Site, number: int) -> None:
    """One message to three, noted as the load does."""
    host, _, port = site.smtp.rpartition(":")
    recipients = [f"ok{number}a@m.test", f"defer{number}b@m.test", f"ok{number}c@m.test"]
    with smtplib.SMTP(host, int(port), timeout=10) as server:
        server.ehlo("load.test")
        server.mail("sender@load.test")
        for each in recipients:
            server.rcpt(each)
        code, text = server.data(f"Subject: {number}\r\nX-Load-Id: M-{number}\r\n\r\nto three\r\n".encode())
    assert code == 250
    ids = re.findall("[0-9a-f]{32}", text.decode())
    assert ids
    with (site.world / "load-several.jsonl").open("a") as record:
        for key, recipient in zip(ids, recipients, strict=False):
            line = {"load_id": f"M-{number}-{recipient}", "ids": [key], "recipient": recipient}
            record.write(json.dumps({**line, "end": "acknowledged", "acknowledged": time.time_ns()}) + "\n")


@pytest.mark.trial
def test_whatever_is_killed_the_vault_gives_what_was_acknowledged(site: Site, live: Live) -> None:
    chance = random.Random(f"live-{site.options.kind}")
    seen: list[Seen] = []
    live.protect()
    sending = load(site, "a", 60, 3600)
    try:
        for number in range(KILLS):
            several_recipients(site, number)
            if number % 2 == 0:
                wait_for("protection", live.is_protected, 30)
            time.sleep(chance.uniform(0, LONGEST))  # the random moment of a kill is what is tried here
            victim = chance.choice(["kumodr", "kumod", "both"])
            if victim != "kumod":
                live.kill()
            killed = time.time_ns()
            if victim != "kumodr":
                site.kill(["kumod"])
            if victim != "kumod" and (found := live.brought_back()) is not None:
                seen.append(look(found, killed))
            if victim != "kumodr":
                site.start(["kumod"])
            if victim != "kumod":
                live.protect()
        wait_for("protection", live.is_protected, 30)
    finally:
        stop(sending)
    site.stop(["kumod"])
    live.wait()
    ended = time.time_ns()
    assert live.stop() < 10
    found = live.brought_back()
    assert found is not None
    assert messages_of(found[0] / "spool") == messages_of(site.root / "spool"), "the stopped spool, byte for byte"
    assert logs_of(found[0] / "logs" / "1-logs") == logs_of(site.root / "logs")
    seen.append(look(found, ended))
    everything(site)
    tally = Tally()
    messages = [each for each in sent(site.world) if not each.recipient.startswith("refuse")]
    deliveries = taken(site.world)
    for each in seen:
        judge(each, without_delivered(messages, each, site), deliveries, tally)
    assert tally.losses == []
    assert tally.judged > 50
    assert len(seen) > KILLS // 3
    assert left_before(seen, site) == []
    assert live.problems == []


def messages_of(spool: Path) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """What a spool holds, but for bodies without metadata: a killed server left them of mail that it never accepted."""
    meta, bodies = content(spool)
    return meta, {key: body for key, body in bodies.items() if key in meta}


def look(found: tuple[Path, float], killed: int) -> Seen:
    """Return what was restored."""
    import hashlib

    meta, bodies = content(found[0] / "spool")
    hashes = {key.hex(): hashlib.sha256(body).hexdigest() for key, body in bodies.items()}
    return Seen(int(found[1] * 1e9), killed, frozenset(key.hex() for key in meta), hashes)


def without_delivered(messages: list[Sent], seen: Seen, site: Site) -> list[Sent]:
    """Leave out those whose id the sink took by then: messages to several are judged by id."""
    gone = {each.id for each in taken(site.world) if each.time <= seen.ended}
    return [each for each in messages if not set(each.ids) <= gone]


def left_before(seen: list[Seen], site: Site) -> list[str]:
    """Return ids that the sink took once and for all two seconds before a state, and that are in it."""
    times: dict[str, list[int]] = {}
    for each in taken(site.world):
        times.setdefault(each.id, []).append(each.time)
    once = {key: moments[0] for key, moments in times.items() if len(moments) == 1}
    return [key for each in seen for key in each.meta if once.get(key, each.begun) < each.begun - 2_000_000_000]


def everything(site: Site) -> None:
    """Let the sink take all, again too what a killed server had no time to remove."""
    site.sink_rules(mode="accept")
    site.start(["kumod"])

    def is_empty() -> bool:
        found = trial.look(site, Tally())
        return found is not None and not found.meta

    wait_for("an empty queue", is_empty, 60)


def logs_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.stat().st_size}


@pytest.mark.parametrize("site", ["RocksDB"], indirect=True)
def test_a_log_that_is_deleted_when_it_is_finished_is_in_the_vault(site: Site, live: Live) -> None:
    live.protect()
    wait_for("protection", live.is_protected, 30)
    deleted: dict[str, bytes] = {}
    sending = load(site, "a", 100, 3600)
    try:
        deadline = time.monotonic() + 30
        while len(deleted) < 4:
            assert time.monotonic() < deadline
            live.wait()
            for path in list((site.root / "logs").iterdir()):
                if not path.stat().st_mode & 0o222 and path.stat().st_mtime < time.time() - 1:
                    deleted[path.name] = path.read_bytes()
                    path.unlink()
    finally:
        stop(sending)
    site.stop(["kumod"])
    live.wait()
    live.stop()
    found = live.brought_back()
    assert found is not None
    restored = found[0] / "logs" / "1-logs"
    assert logs_of(restored) == logs_of(site.root / "logs") | {name: data for name, data in deleted.items() if data}
    assert all(not path.stat().st_mode & 0o222 for path in restored.iterdir() if path.is_file())


def test_what_the_vault_did_not_take_waits_on_disk(site: Site, live: Live, tmp_path: Path) -> None:
    """SIGTERM ends it within seconds; nothing is lost, and the next run goes on."""
    live.protect()
    wait_for("protection", live.is_protected, 30)
    vault, elsewhere = tmp_path / "vault", tmp_path / "elsewhere"
    vault.rename(elsewhere)
    sending = load(site, "a", 100, 3600)
    wait_for("trouble", lambda: live.figures().state == "behind" and live.figures().messages_at_risk > 20)
    assert live.stop() < 10
    figures = live.figures()
    assert figures.state == "stopped"
    waiting = list((live.state / "backlog").glob("*.seg"))
    assert waiting
    elsewhere.rename(vault)
    live.protect()
    wait_for("protection", live.is_protected, 30)
    stop(sending)
    site.stop(["kumod"])
    live.wait()
    assert list((live.state / "backlog").iterdir()) == []
    assert live.stop() < 10
    found = live.brought_back()
    assert found is not None
    assert messages_of(found[0] / "spool") == messages_of(site.root / "spool")
    assert live.problems == []


def test_another_spool_in_its_place(site: Site, live: Live) -> None:
    """Somebody restores a spool beneath it: a new base, and the reason on record."""
    live.protect()
    sending = load(site, "a", 100, 3600)
    wait_for("mail", lambda: len(sent(site.world)) > 30)
    wait_for("protection", live.is_protected, 30)
    stop(sending)
    site.stop(["kumod"])
    spool = site.root / "spool"
    shutil.copytree(spool, site.root / "copy")
    spool.rename(site.root / "old")
    (site.root / "copy").rename(spool)
    wait_for("a new base", lambda: live.figures().rebase_counts.get("spool", 0) >= 1)
    live.wait()
    live.stop()
    assert "director" in live.figures().rebases[-1].reason
    found = live.brought_back()
    assert found is not None
    assert messages_of(found[0] / "spool") == messages_of(spool)


@pytest.mark.parametrize("site", ["RocksDB"], indirect=True)
def test_what_is_beside_the_spool_is_stored_too(site: Site, tmp_path: Path) -> None:
    """Configuration when it changes, Redis and Prometheus on their intervals, each by itself."""
    with redis_server(tmp_path / "redis") as (address, server), prometheus_server(tmp_path / "prom") as prometheus:
        server.set("a", "1")
        values = plan_of(site, tmp_path, {"every": 0.2, "redis_every": 2, "prometheus_every": 3})
        values["components"]["redis"] = {"url": address}
        values["components"]["prometheus"] = {"data": str(tmp_path / "prom" / "data"), "url": prometheus}
        live = Live(tmp_path, values)

        def stored(component: str) -> int:
            return sum(1 for each in live.points() if each.section(component) is not None)

        live.protect()
        try:
            wait_for("Redis twice", lambda: stored("redis") >= 2, 30)
            wait_for("Prometheus twice", lambda: stored("prometheus") >= 2, 30)
            assert stored("spool") == 1
            before = stored("config")
            assert before == 1
            (site.root / "config" / "new.lua").write_text("-- changed")
            wait_for("the change", lambda: stored("config") == before + 1, 15)
            assert set(live.figures().components) == {"spool", "logs", "ledger", "config", "redis", "prometheus"}
            (newest,) = [each for each in live.points() if each.section("config")][-1:]
            assert newest.failures == {}
        finally:
            assert live.stop() < 10


def test_two_hundred_megabytes_at_once(tmp_path: Path) -> None:
    """Memory stays below the bound of the issue, also while the vault is away."""
    databases = {}
    (tmp_path / "spool").mkdir()
    for name in ("meta", "data"):
        databases[name] = WalDatabase(tmp_path / "spool" / name, buffer=64 << 20)
    values = {
        "version": 1,
        "site": "primary",
        "vault": {"url": str(tmp_path / "vault")},
        "state": str(tmp_path / "state"),
        "components": {"spool": {name: str(tmp_path / "spool" / name) for name in databases}},
    }
    live = Live(tmp_path, values)
    live.protect()
    try:
        assert live.process is not None
        wait_for("protection", live.is_protected, 30)
        for number in range(25_000):
            databases["data"].send("write", number, number, 8_000)
            databases["meta"].send("write", number, number, 100)
            if number % 100 == 99:
                for each in databases.values():
                    each.wait()
        live.wait()
        assert live.figures().accepted_messages >= 25_000
        assert peak(live.process.pid) < 200 << 20
    finally:
        live.stop()
        for each in databases.values():
            each.kill()


def peak(process: int) -> int:
    """The largest resident size that a process had, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("it ended")
