"""The lab: up, loaded, broken, restored into, down; and nothing is left."""

import json
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers import free_port, wait_for

from kumodr import errors
from kumodr.lab import faults
from kumodr.lab.account import Sent, Taken, account, sent, taken
from kumodr.lab.kumod.config import Config
from kumodr.lab.load import Load, run_load
from kumodr.lab.options import Options
from kumodr.lab.policy import LOOPBACK, PRIVATE, policy
from kumodr.lab.processes import Process, is_running, kill, start
from kumodr.lab.site import Site, adopt, create, open_site
from kumodr.spool.reader import open_spool


def kumodr(*words: str, cwd: Path, expect: int = 0) -> dict:
    environment = {**os.environ, "XDG_CACHE_HOME": f"{cwd}-cache", "XDG_STATE_HOME": f"{cwd}-state"}
    done = subprocess.run(
        [sys.executable, "-m", "kumodr", *words, "--json"], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return json.loads(done.stdout)


def lives(pid: int) -> bool:
    """Whether a process is there that is not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def site(lab_options: Options, tmp_path: Path) -> Iterator[Site]:
    made = create(tmp_path / "lab", lab_options)
    made.start()
    yield made
    made.kill()


def loaded(site: Site, **words: object) -> None:
    import asyncio

    load = Load(to=site.smtp, record=site.world / "load.jsonl", rate=0, **{"count": 60, "seconds": 30, **words})
    asyncio.run(run_load(load))


def test_the_whole_lab_by_the_command_line(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    real = ["--kumod", os.environ["KUMODR_TEST_KUMOD"]] if os.environ.get("KUMODR_TEST_KUMOD") else []
    up = kumodr("lab", "up", str(directory), *real, cwd=tmp_path)
    pids = [pid for pid in up["processes"].values() if pid]
    try:
        assert set(up["processes"]) == {"sink", "redis", "prometheus", "kumod"}
        assert len(pids) == 4
        assert kumodr("lab", "up", str(directory), cwd=tmp_path)["processes"] == up["processes"]
        report = kumodr(
            "lab", "load", str(directory), "--count", "50", "--rate", "0", "--deferred", "0.2", cwd=tmp_path
        )
        assert report["acknowledged"] == 50
        findings = kumodr("check", cwd=directory, expect=3)["findings"]
        assert {each["place"] for each in findings if each["level"] == "bad"} == {"vault"}
        plan = kumodr("init", "--lab", str(directory), "--out", str(tmp_path / "plan.yaml"), cwd=tmp_path)
        assert plan["covered"] == ["spool", "logs", "config", "redis", "prometheus"]
        kumodr("init", "--lab", str(directory), "--out", str(tmp_path / "plan.yaml"), cwd=tmp_path, expect=2)
        wait_for("deliveries", lambda: kumodr("lab", "status", str(directory), cwd=tmp_path)["mail"]["delivered"] > 20)
        broken = kumodr("lab", "break", "kill", str(directory), cwd=tmp_path)
        assert str(up["processes"]["kumod"]) in broken["did"]
        assert kumodr("lab", "status", str(directory), cwd=tmp_path)["processes"]["kumod"] is None
        assert kumodr("lab", "break", "nonsense", str(directory), cwd=tmp_path, expect=2)["error"] == "UsageWrong"
    finally:
        kumodr("lab", "down", str(directory), "--remove", cwd=tmp_path)
    assert not directory.exists()
    assert [pid for pid in pids if lives(pid)] == []
    assert kumodr("lab", "status", str(directory), cwd=tmp_path, expect=4)["error"] == "LabMissing"


def test_a_site_that_cannot_start_leaves_no_process(tmp_path: Path) -> None:
    options = Options(kumod=str(tmp_path / "none"), redis=False, prometheus=False)
    site = create(tmp_path / "lab", options)
    with pytest.raises(errors.LabFailed):
        site.start()
    assert not site.running("sink")
    with pytest.raises(errors.TargetNotEmpty):
        create(tmp_path / "lab", options)


def test_after_a_wipe_the_sink_goes_on_until_the_lab_is_taken_down(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    up = kumodr("lab", "up", str(directory), cwd=tmp_path)
    assert "removed" in kumodr("lab", "break", "wipe", str(directory), cwd=tmp_path)["did"]
    assert [name for name, pid in up["processes"].items() if lives(pid)] == ["sink"]
    assert kumodr("lab", "status", str(directory), cwd=tmp_path, expect=4)["error"] == "LabMissing"
    again = kumodr("lab", "up", str(directory), cwd=tmp_path)
    assert again["processes"]["sink"] == up["processes"]["sink"]
    kumodr("lab", "break", "wipe", str(directory), cwd=tmp_path)
    assert kumodr("lab", "down", str(directory), "--remove", cwd=tmp_path)["stopped"] == ["sink"]
    assert not directory.exists()
    assert not any(lives(pid) for each in (up, again) for pid in each["processes"].values())
    assert kumodr("lab", "down", str(directory), cwd=tmp_path, expect=4)["error"] == "LabMissing"


def test_a_pid_that_is_somebody_elses_is_not_touched(tmp_path: Path) -> None:
    mine = start(["sleep", "60"], tmp_path / "log")
    foreign = Process(mine.pid, mine.began + 1)
    kill(foreign)
    assert is_running(mine)
    kill(mine)
    assert not is_running(mine)


def test_what_was_acknowledged_is_recorded_and_accounted_for(site: Site) -> None:
    loaded(site, refused=0.2, deferred=0.2, tenants=2)
    wait_for("the deliveries", lambda: len(taken(site.world)) >= 25)
    messages = sent(site.world)
    assert len(messages) == 60
    assert all(len(each.ids) == 1 and len(each.ids[0]) == 32 for each in messages)
    ids = {each.load_id: each.ids[0] for each in messages}
    assert all(ids[each.load_id] == each.id for each in taken(site.world))
    kinds = {each.recipient.partition("@")[0].rstrip("0123456789") for each in taken(site.world)}
    assert kinds == {"ok"}
    site.sink_rules(mode="accept")
    wait_for("the deferred ones", lambda: any(each.recipient.startswith("defer") for each in taken(site.world)), 40)


def test_the_sums_of_an_account() -> None:
    messages = [Sent(each, (each,), "r", 1) for each in ("a", "b", "c")]
    deliveries = [Taken(each, each, "r", 1, "") for each in ("a", "a", "b", "unknown")]
    sums = account(messages, deliveries)
    assert (sums.acknowledged, sums.delivered) == (3, 2)
    assert (sums.duplicates, sums.missing, sums.unrecorded) == (("a",), ("c",), ("unknown",))


def test_faults_are_repeatable_and_say_what_they_did(site: Site, tmp_path: Path) -> None:
    site.sink_rules(mode="defer")
    loaded(site, count=200)
    site.kill(["kumod"])
    spool = site.root / "spool"
    before = {path: path.read_bytes() for path in spool.rglob("*") if path.is_file()}
    for name in ("flip-bit", "drop-wal", "truncate-wal", "drop-current"):
        said = set[str]()
        changed = set[str]()
        for _attempt in range(2):
            said.add(faults.break_site(site, name, 7))
            now = {path: path.read_bytes() for path in spool.rglob("*") if path.is_file()}
            different = [str(path) for path, data in before.items() if now.get(path) != data]
            assert len(different) == 1, name
            changed.add(different[0])
            for path, data in before.items():
                path.write_bytes(data)
        assert len(said) == len(changed) == 1, name
        assert changed.pop() in said.pop()
    with pytest.raises(errors.LabFailed, match="GiB free"):
        faults.fill_disk(site, random.Random(1))


def test_a_restored_directory_becomes_a_site(site: Site, tmp_path: Path) -> None:
    site.sink_rules(mode="defer")
    loaded(site, count=20)
    site.stop(["kumod"])
    restored = tmp_path / "restored"
    (restored / "config" / "files" / "etc").mkdir(parents=True)
    os.rename(site.root / "spool", restored / "spool")
    os.rename(site.root / "config", restored / "config" / "files" / "etc" / "config")
    site.wipe()
    (restored / "spool").chmod(0o700)  # as a restore leaves it
    again = adopt(site.directory, restored)
    assert (again.root / "spool").stat().st_mode & 0o777 == 0o755
    again.start()
    try:
        with open_spool(again.root / "spool" / "meta", again.root / "spool" / "data") as spool:
            assert set(spool.ids()) == {each.ids[0] for each in sent(site.world)}
        assert open_site(site.directory).addresses == again.addresses
    finally:
        again.kill()


FAKE = """#!{python}
import http.server, json, os, socketserver, sys, threading
record = {{"argv": sys.argv[1:], "uid": os.geteuid(), "node": os.environ.get("KUMO_NODE_ID_PATH")}}
policy = open(sys.argv[sys.argv.index("--policy") + 1]).read()
ports = [int(line.split(":")[1].split("'")[0]) for line in policy.splitlines() if "listen = '" in line]
open({record!r}, "w").write(json.dumps(record))
class Alive(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"OK")
    def log_message(self, *words): pass
smtp = socketserver.TCPServer(("127.0.0.1", ports[1]), socketserver.BaseRequestHandler)
threading.Thread(target=smtp.serve_forever, daemon=True).start()
http.server.HTTPServer(("127.0.0.1", ports[0]), Alive).serve_forever()
"""


@pytest.mark.parametrize("kind", ["RocksDB", "LocalDisk"])
def test_a_real_kumod_is_started_as_it_wants_to_be(tmp_path: Path, kind: str) -> None:
    program, record = tmp_path / "kumod", tmp_path / "record.json"
    program.write_text(FAKE.format(python=sys.executable, record=str(record)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    options = Options(kind=kind, kumod=str(program), redis=False, prometheus=False, write_buffer_size=65536)
    site = create(tmp_path / "lab", options)
    try:
        site.start()
        seen = json.loads(record.read_text())
        assert seen["argv"][0] == "--policy"
        assert ("--user" in seen["argv"]) == (os.geteuid() == 0)  # as root a real kumod refuses to run without
        assert seen["node"] == str(site.root / "config" / "nodeid")
    finally:
        site.kill()


def test_the_policy_for_a_real_kumod_says_everything(tmp_path: Path) -> None:
    config = Config(
        meta="/s/meta", data="/s/data", logs="/l", nodeid_path="/n", smtp="127.0.0.1:1", http="127.0.0.1:2",
        sink="127.0.0.1:3", retry_interval=0.2, max_retry_interval=20, max_segment_duration=1, write_buffer_size=65536,
    )  # fmt: skip
    text = policy(config, "/run")
    for word in (
        "kind = 'RocksDB'", "path = '/s/data'", "path = '/s/meta'", "write_buffer_size = 65536", "log_dir = '/l'",
        "max_segment_duration = '1s'", "listen = '127.0.0.1:2'", "listen = '127.0.0.1:1'", "addr = '127.0.0.1:3'",
        "retry_interval = '1s'", "max_retry_interval = '20s'", "max_age = '604800s'", "prohibited_hosts = {}",
    ):  # fmt: skip
        assert word in text, word
    assert text.index("define_spool") < text.index("start_http_listener")
    assert "rocks_params" not in policy(replace(config, kind="LocalDisk"), "/run")
    boxed = policy(replace(config, sink="sink:2526"), "/run", (*LOOPBACK, *PRIVATE))
    assert "mx_list = { 'sink:2526' }" in boxed
    assert "relay_hosts = { '127.0.0.1', '::1', '10.0.0.0/8'" in boxed
    for opening, closing in ("{}", "()"):
        assert text.count(opening) == text.count(closing)


def test_a_load_against_nobody_ends_by_itself(tmp_path: Path) -> None:
    import asyncio

    begun = time.monotonic()
    load = Load(to=f"127.0.0.1:{free_port()}", record=tmp_path / "load.jsonl", seconds=0.3)
    report = asyncio.run(run_load(load))
    assert report.acknowledged == 0
    assert time.monotonic() - begun < 10


def test_faults_of_tables(lab_options: Options, tmp_path: Path) -> None:
    site = create(tmp_path / "lab", replace(lab_options, write_buffer_size=64 << 10))
    try:
        site.start()
        site.sink_rules(mode="defer")
        loaded(site, count=400, size=3000)
        wait_for(
            "tables of both halves",
            lambda: all(list((site.root / "spool" / half).glob("*.sst")) for half in ("meta", "data")),
        )
        site.kill(["kumod"])
        for name in ("corrupt-sst", "truncate-sst", "drop-sst"):
            before = {path: path.read_bytes() for path in (site.root / "spool").glob("*/*.sst")}
            said = faults.break_site(site, name, 3)
            now = {path: path.read_bytes() for path in (site.root / "spool").glob("*/*.sst")}
            (changed,) = (path for path, data in before.items() if now.get(path) != data)
            assert str(changed) in said
            changed.write_bytes(before[changed])
    finally:
        site.kill()


def test_a_fault_of_plain_files(lab_options: Options, tmp_path: Path) -> None:
    site = create(tmp_path / "lab", replace(lab_options, kind="LocalDisk"))
    try:
        with pytest.raises(errors.LabFailed, match="no LocalDisk message"):
            faults.break_site(site, "unparsable-meta", 1)
        site.start()
        site.sink_rules(mode="defer")
        loaded(site, count=20)
        site.kill(["kumod"])
        path = Path(faults.break_site(site, "unparsable-meta", 1).removeprefix("overwrote "))
        assert path.read_bytes() == b"{not json"
    finally:
        site.kill()


def test_a_disk_is_filled(lab_options: Options, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        site = create(disk / "lab", lab_options)
        assert "filled the disk" in faults.break_site(site, "fill-disk", 1)
        with pytest.raises(OSError):
            (disk / "more").write_bytes(bytes(1 << 16))
    finally:
        subprocess.run(["umount", disk], check=True)
