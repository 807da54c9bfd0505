"""No acknowledged message is missing from a snapshot, whenever the mail server is killed; and the trial can fail.

KUMODR_TRIALS sets how many kills, KUMODR_TEST_KUMOD a real mail server, KUMODR_TRIALS_REPORT a file for the counts.
"""

import json
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers import wait_for

from kumodr.lab.account import sent
from kumodr.lab.options import Options
from kumodr.lab.processes import Process, start, stop
from kumodr.lab.site import Site, create
from kumodr.lab.trial import Seen, Tally, judge, look, run_trial

TRIALS = int(os.environ.get("KUMODR_TRIALS", "200"))
CHUNKS = 8
LONGEST = 0.35


@pytest.fixture
def options(lab_options: Options) -> Options:
    """Small memtables: flushes and compactions never stop."""
    return replace(lab_options, write_buffer_size=64 << 10, retry_interval=60.0, max_retry_interval=None)


def load(site: Site, name: str, rate: float, seconds: float) -> Process:
    words = ["--to", site.smtp, "--record", str(site.world / f"load-{name}.jsonl"), "--rate", str(rate)]
    words += ["--seconds", str(seconds), "--size", "3000", "--connections", "4", "--name", name]
    return start([sys.executable, "-m", "kumodr.lab.load", *words], site.world / "load.log")


@pytest.fixture
def site(options: Options, tmp_path: Path) -> Iterator[Site]:
    made = create(tmp_path / "lab", options)
    made.sink_rules(mode="rules", defer_share=0.3)
    made.start(["sink"])
    yield made
    made.kill()


def fresh(site: Site) -> None:
    """Begin a trial: an empty spool, nothing remembered of trials before."""
    for half in ("meta", "data"):
        shutil.rmtree(site.root / "spool" / half)
        (site.root / "spool" / half).mkdir()
    for path in [*(site.root / "logs").iterdir(), *site.world.glob("load*.jsonl")]:
        path.unlink()
    os.truncate(site.world / "index.jsonl", 0)


@pytest.mark.trial
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_acknowledged_is_missing_from_any_snapshot(site: Site, chunk: int) -> None:
    chance = random.Random(f"trials-{chunk}")
    tally = Tally()
    sending = load(site, "a", 300, 3600)
    try:
        for _number in range(TRIALS // CHUNKS + (chunk < TRIALS % CHUNKS)):
            fresh(site)
            stop(sending)
            sending = load(site, "a", 300, 3600)
            site.start(["kumod"])
            wait_for("the load", lambda: len(sent(site.world)) > 20, 30)
            run_trial(site, chance, tally, snapshots=3, longest=LONGEST)
    finally:
        stop(sending)
    report(tally)
    assert tally.losses == []
    assert tally.judged > 20 * tally.kills / 2, "the trial judged too little to mean anything"


def report(tally: Tally) -> None:
    """Add a chunk's counts to the report that KUMODR_TRIALS_REPORT names."""
    name = os.environ.get("KUMODR_TRIALS_REPORT")
    if not name:
        return
    path = Path(name)
    before = json.loads(path.read_text()) if path.exists() else {}
    times = before.get("snapshot_ms", []) + [round(1000 * each, 1) for each in tally.took]
    document = {
        "kills": before.get("kills", 0) + tally.kills,
        "snapshots": before.get("snapshots", 0) + tally.snapshots,
        "messages_judged": before.get("messages_judged", 0) + tally.judged,
        "absent": before.get("absent", 0) + len(tally.absent),
        "body_lost": before.get("body_lost", 0) + len(tally.body_lost) + len(tally.body_wrong),
        "damaged": before.get("damaged", 0) + len(tally.damaged),
        "retries": before.get("retries", 0) + tally.retries,
        "snapshot_median_ms": statistics.median(times) if times else 0,
        "snapshot_max_ms": max(times, default=0),
        "snapshot_ms": times,
    }
    path.write_text(json.dumps(document))


def test_the_trial_sees_what_the_wrong_order_loses(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data first, then meta: bodies that come in between are lost, and the judge says so."""
    from kumodr.spool import snapshot as module

    real = module._half
    pauses: list[str] = []

    def slowly(name: str, directory: Path, kind: str, attempts: int):
        if name == "meta":
            pauses.append(name)
            time.sleep(0.4)  # more of what time itself does: mail comes in between the two halves
        return real(name, directory, kind, attempts)

    sending = load(site, "a", 300, 60)
    try:
        site.start(["kumod"])
        wait_for("the load", lambda: len(sent(site.world)) > 50, 30)
        tally = Tally()
        monkeypatch.setattr(module, "_half", slowly)
        seen = look(site, tally, order=("data", "meta"))
        monkeypatch.undo()
    finally:
        stop(sending)
    assert seen is not None
    assert pauses
    messages = sent(site.world)
    late = Seen(seen.ended, seen.ended, seen.meta, seen.bodies)
    judge(late, messages, [], tally)
    assert tally.body_lost, "the wrong order lost nothing: this trial could not fail"
    right = Tally()
    found = look(site, right)
    assert found is not None
    assert not [each for each in found.meta - set(found.bodies) if each in {key for m in messages for key in m.ids}]


def test_the_judge_sees_a_message_that_is_missing() -> None:
    from kumodr.lab.account import Sent, Taken

    message = Sent("l1", ("id1",), "ok@x", 100)
    cases = [
        (Seen(200, 300, frozenset(), {}), [], "absent: id1"),
        (Seen(200, 300, frozenset(["id1"]), {}), [], "body lost: id1"),
        (Seen(200, 300, frozenset(["id1"]), {"id1": "x"}), [Taken("l1", "id1", "ok@x", 400, "y")], "body wrong: id1"),
        (Seen(200, 300, frozenset(["id1"]), {"id1": "x"}), [], None),
        (Seen(50, 300, frozenset(), {}), [], None),
        (Seen(200, 300, frozenset(), {}), [Taken("l1", "id1", "ok@x", 250, "y")], None),
    ]
    for seen, deliveries, expected in cases:
        tally = Tally()
        judge(seen, [message], deliveries, tally)
        assert tally.losses == ([expected] if expected else [])
