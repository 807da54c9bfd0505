"""`kumodr recover data`: what a fault of the lab met comes back with all that can be read, proved by its mail."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from run_child import command_in_child
from test_recover_system import MESSAGES, Disaster, begun, facts_of

from kumodr import errors
from kumodr.lab.options import Options
from kumodr.lab.site import create, stop_world
from kumodr.plan.model import Components, Plan, PrometheusPlan, RedisPlan, VaultPlan
from kumodr.recover.data import prometheus as prometheus_data
from kumodr.recover.data import redis as redis_data
from kumodr.recover.data import union
from kumodr.recover.data.blocks import why_not_sound
from kumodr.recover.data.runbook import recover_data
from kumodr.recover.system import place
from kumodr.runbooks.runs import listed
from kumodr.runbooks.state import state_in


class Corruption(Disaster):
    """A lab site with mail in its vault, and younger mail only in its spool."""

    def begin(self) -> None:
        super().begin()
        self.stored = set(self.spool())
        self.load("second")

    def broken(self, fault: str, seed: int = 1) -> None:
        """Have the mail server end, so that everything is on disk, and then break it."""
        self.site.stop(["kumod"])
        self.kumodr("lab", "break", fault, str(self.lab), "--seed", str(seed))

    def recover(self, *words: str, code: int = 0) -> Any:
        return self.kumodr("recover", "data", "--identity", str(self.key), "--yes", *words, code=code)

    def spool(self) -> dict[str, bytes]:
        root = self.site.root / "spool"
        return {
            str(path.relative_to(root)): path.read_bytes()
            for half in ("meta", "data") for path in (root / half).rglob("*") if path.is_file()
        }  # fmt: skip

    def kept(self, before: dict[str, bytes]) -> None:
        """Nothing of the damaged spool is gone: it is beside, byte by byte."""
        root = self.site.root / "spool"
        for name, content in before.items():
            half, _, rest = name.partition("/")
            (aside,) = root.glob(f"{half}.before-*")
            assert (aside / rest).read_bytes() == content


@pytest.fixture
def corruption(tmp_path: Path, lab_options: Options, request: pytest.FixtureRequest) -> Iterator[Corruption]:
    with begun(Corruption(tmp_path, replace(lab_options, kind=getattr(request, "param", "RocksDB")))) as made:
        yield made


@pytest.mark.parametrize(
    ("corruption", "fault"),
    [("RocksDB", "drop-wal"), ("LocalDisk", "unparsable-meta")],
    indirect=["corruption"],
)
def test_a_fault_is_diagnosed_and_what_can_be_read_comes_back(corruption: Corruption, fault: str) -> None:
    corruption.broken(fault)
    before = corruption.spool()
    dry = corruption.kumodr("recover", "data", "--identity", str(corruption.key), "--dry-run")
    assert "spool: damaged" in dry["steps"][0]["would"]
    assert corruption.spool() == before
    # What is broken of the younger mail is nowhere else.
    young = any(content == b"{not json" and name not in corruption.stored for name, content in before.items())
    facts = facts_of(corruption.recover(code=3 if fault == "drop-wal" or young else 0))
    (spool,) = facts["components"]
    assert spool["verdict"] == "damaged" and spool["evidence"]
    corruption.kept(before)
    saved = facts["saved"]
    assert facts["expected"] == facts["loaded"]
    with open(Path(facts["lists"]) / "origins.csv") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["metadata"] == row["body"] == "spool" for row in rows) == saved["from_spool"]
    if fault == "drop-wal":  # the youngest mail stood in that log only; the vault has the rest
        assert MESSAGES <= facts["expected"] == saved["messages"]
        assert facts["lost"] + facts["perhaps_lost"] == 2 * MESSAGES - facts["expected"]
        lost = json.loads((Path(facts["lists"]) / "lost.json").read_text())
        assert len(lost) == facts["lost"] + facts["perhaps_lost"]
        return
    assert facts["expected"] == 2 * MESSAGES - young
    # The last base knows nothing of the second load.
    assert facts["usual_way"] == {"base": "lab-1", "would_have_lost": facts["expected"] - MESSAGES}
    if not young:
        assert facts["lost"] == 0
        assert saved["from_both"] == 1
        corruption.accounted()


def test_killed_after_every_act_of_one_run_it_ends_as_if_it_had_not_been(corruption: Corruption) -> None:
    corruption.broken("drop-current")
    before, state = corruption.spool(), state_in(corruption.lab / "site" / "kumodr-state", "lab")
    trace, here = corruption.lab / "world" / "trace", Path.cwd()
    words = ["recover", "data", "--identity", str(corruption.key), "--yes", "--json"]
    steps = recover_data({"plan": str(corruption.lab / "kumodr.yaml")}).names()
    os.chdir(corruption.lab)
    try:
        for step in steps:
            code = command_in_child(words, trace, (step, "after"))
            assert code == -9, (step, code, trace.read_text() if trace.exists() else "")
            assert [run.standing for run in listed(state)] == ["unfinished"]
            words = ["runs", "resume", "--yes", "--json"]
            for part in MIDST.get(step, ()):
                code = command_in_child(words, trace, prepared=f"test_recover_data:{part.__name__}")
                assert code == -9, (step, part, trace.read_text() if trace.exists() else "")
        code = command_in_child(words, trace)
        assert code == 0, trace.read_text() if trace.exists() else ""
    finally:
        os.chdir(here)
    (run,) = listed(state)
    facts = {name: value for entry in run.entries for name, value in entry.facts.items()}
    assert run.standing == "done"
    assert facts["saved"]["messages"] == facts["expected"] == facts["loaded"] == 2 * MESSAGES
    assert facts["saved"]["from_spool"] == 2 * MESSAGES
    assert facts["usual_way"] == {"base": "lab-1", "would_have_lost": MESSAGES}
    corruption.kept(before)
    corruption.accounted()


def _killed_before_the_record_of_the_salvage() -> None:
    union.write_file = lambda *_words, **_options: os.kill(os.getpid(), signal.SIGKILL)  # pyright: ignore


def _killed_between_the_halves() -> None:
    real = place.moved

    def moved(*words: Any) -> None:
        real(*words)
        os.kill(os.getpid(), signal.SIGKILL)

    place.moved = moved


MIDST = {"restore": (_killed_before_the_record_of_the_salvage,), "reconcile": (_killed_between_the_halves,)}
"""What is killed in the midst of the act that follows a step, in a session of its own."""


@pytest.mark.parametrize("corruption", ["LocalDisk"], indirect=True)
def test_nothing_is_touched_without_a_reason_a_key_and_a_vault(corruption: Corruption) -> None:
    pid = corruption.site.pid("kumod")
    sound = corruption.recover()
    assert facts_of(sound)["damaged"] == []
    assert sound["entries"][-2]["text"] == "every component is sound: nothing is changed"
    assert corruption.site.pid("kumod") == pid
    other = corruption.key.with_name("other.txt")
    corruption.kumodr("vault", "init", "--url", str(corruption.lab / "other"), "--identity-out", str(other))
    corruption.broken("unparsable-meta")
    before = corruption.spool()
    wrong = corruption.kumodr("recover", "data", "--yes", "--identity", str(other), code=1)
    assert "stopped at diagnose" in wrong["message"] and "not sealed to this identity" in wrong["message"]
    corruption.recover("--pause-before", "restore", code=3)
    content = Path(corruption.vault) / "objects"
    content.rename(content.with_name("away"))
    gone = corruption.kumodr("runs", "resume", "--yes", code=1)
    assert "stopped at restore" in gone["message"]
    assert corruption.spool() == before
    content.with_name("away").rename(content)
    facts = facts_of(corruption.kumodr("runs", "resume", "--yes"))
    assert facts["saved"]["messages"] == facts["loaded"]
    corruption.kept(before)
    corruption.accounted()


@pytest.fixture
def with_others(tmp_path: Path) -> Iterator[Corruption]:
    """A site whose Prometheus has a block, and whose Redis has a key; both are in the vault."""
    made = Corruption(tmp_path, Options(prometheus=True, redis=True))
    site = create(made.lab, made.options, vault=made.vault)
    try:
        begin = int(time.time()) - 8 * 3600
        samples = [f"a_total {each} {begin + each * 15}" for each in range(200)]
        text = "\n".join(["# TYPE a counter", *samples, "# EOF", ""])
        (tmp_path / "metrics").write_text(text)
        words = ["promtool", "tsdb", "create-blocks-from", "openmetrics", tmp_path / "metrics"]
        subprocess.run([*words, site.root / "prometheus" / "data"], check=True, capture_output=True)
        site.start()
        redis.Redis.from_url(f"redis://127.0.0.1:{site.addresses.redis}").set("throttle", "1")
        made.kumodr("vault", "init", "--identity-out", str(made.key))
        made.kumodr("backup")
        yield made
    finally:
        site = made.site
        site.kill()
        stop_world(made.lab)


def test_redis_and_prometheus_come_back_and_a_sound_mail_server_goes_on(with_others: Corruption) -> None:
    site = with_others.site
    site.stop(["redis", "prometheus"])
    pid = site.pid("kumod")
    segment = next(each for each in sorted((site.root / "prometheus" / "data").glob("*/chunks/000001")))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    (site.root / "redis" / "dump.rdb").write_bytes(b"nothing of the kind" * 9)
    facts = facts_of(with_others.recover())
    verdicts = {each["component"]: each["verdict"] for each in facts["components"]}
    assert verdicts == {"spool": "sound", "redis": "damaged", "prometheus": "damaged"}
    assert "Wrong signature" in next(
        each["evidence"][0] for each in facts["components"] if each["component"] == "redis"
    )
    assert facts["parts"]["prometheus"] == [segment.parent.parent.name]
    assert with_others.site.pid("kumod") == pid
    assert redis.Redis.from_url(f"redis://127.0.0.1:{site.addresses.redis}").get("throttle") == b"1"
    assert why_not_sound(segment.parent.parent) is None
    aside = next((site.root / "prometheus" / "data").glob("*.before-*"))
    assert (aside / "chunks" / "000001").read_bytes() == content
    assert len(list((site.root / "redis").glob("dump.rdb.before-*"))) == 1
    answer = httpx.get(f"http://127.0.0.1:{site.addresses.prometheus}/-/ready", timeout=5)
    assert answer.status_code == 200


def test_putting_back_twice_is_as_good_as_once_and_keeps_what_was_there(tmp_path: Path) -> None:
    folder, copy, blocks, of_vault = (tmp_path / name for name in ("redis", "copy", "blocks", "of-vault"))
    block, other = "01M86XQHKHNA3DF649JC4H7F6P", "01M86XQHKHNA3DF649JC4H7F6Q"
    said: list[str] = []
    for path, text in (
        (folder / "cache.rdb", "damaged"), (copy / "dump.rdb", "good"), (blocks / block / "index", "damaged"),
        (blocks / other / "index", "damaged"), (of_vault / block / "index", "good"),
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    where = Components(redis=RedisPlan("", data=str(folder)), prometheus=PrometheusPlan(data=str(blocks)))
    plan = Plan(version=1, site="x", vault=VaultPlan(""), state="", components=where)
    for _ in range(2):
        list(redis_data.put_back(copy, plan, "r"))
        said = list(prometheus_data.put_back(of_vault, plan, "r", [block, other]))
    assert sorted(path.name for path in folder.iterdir()) == ["cache.rdb", "cache.rdb.before-r"]
    assert (folder / "cache.rdb").read_text() == "good"
    assert (folder / "cache.rdb.before-r").read_text() == "damaged"
    assert {path.name for path in blocks.iterdir()} == {block, f"{block}.before-r", f"{other}.before-r"}
    assert (blocks / block / "index").read_text() == "good"
    assert f"block {other} is not in the vault" in said[1]
    (copy / "dump.rdb").write_text("good")
    (folder / "appendonlydir").mkdir()
    with pytest.raises(errors.StepFailed, match="appendonly no"):
        list(redis_data.put_back(copy, plan, "r2"))
