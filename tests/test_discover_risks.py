"""Each risk by itself: when it is one, when it is none, and what to do."""

from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from kumodr.discover import risks
from kumodr.plan.load import parse_plan
from kumodr.plan.model import Plan
from kumodr.plan.render import SAMPLE, render

PLAN: Plan = parse_plan(render(SAMPLE).encode(), Path("/x/kumodr.yaml"))


def test_objectives_that_the_loop_cannot_meet() -> None:
    assert risks.stored_too_rarely(PLAN) == ()
    wanted = replace(PLAN.objectives, configuration=900.0, queue=10.0, analytics=60.0)
    found = [each.text for each in risks.stored_too_rarely(replace(PLAN, objectives=wanted))]
    assert found == [
        "objectives.queue is 10 s, but protect.heartbeat is 30 s: it cannot be met",
        "objectives.configuration is 900 s, but protect.config_every is 1800 s: it cannot be met",
        "objectives.analytics is 60 s, but protect.redis_every is 900 s: it cannot be met",
        "objectives.analytics is 60 s, but protect.prometheus_every is 3600 s: it cannot be met",
    ]
    without = replace(PLAN, objectives=wanted, components=replace(PLAN.components, redis=None, prometheus=None))
    assert len(risks.stored_too_rarely(without)) == 2


@pytest.mark.parametrize(
    ("mode", "kind", "risky"),
    [
        (0o2770, "rocksdb", False), (0o755, "rocksdb", False), (0o750, "rocksdb", False), (0o705, "rocksdb", False),
        (0o700, "rocksdb", True), (0o2700, "rocksdb", True), (0o710, "rocksdb", True), (0o700, "localdisk", False),
    ],
)  # fmt: skip
def test_modes_of_the_spool(tmp_path: Path, mode: int, kind: str, risky: bool) -> None:
    for folder in (tmp_path / "spool" / "meta", tmp_path / "spool"):
        (tmp_path / "spool" / "meta").mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        found = risks.spool_closed(tmp_path / "spool" / "meta", kind)
        assert (found is not None) == risky
        assert found is None or (found.level == "bad" and "chmod 2770" in found.remedy)
        folder.chmod(0o755)
    assert risks.spool_closed(tmp_path / "absent" / "meta", "rocksdb") is None


@pytest.mark.parametrize(
    ("save", "append_only", "keeps_files", "hint"),
    [
        (None, False, True, None), ("900 1", False, True, None), ("", True, True, None),
        ("", False, True, "over a restart"), (None, True, False, "no volume"), ("", False, False, "over a restart"),
    ],
)  # fmt: skip
def test_what_redis_forgets(save: str | None, append_only: bool, keeps_files: bool, hint: str | None) -> None:
    found = risks.redis_forgets(save, append_only, keeps_files=keeps_files)
    assert found is None if hint is None else found is not None and hint in found.text


def test_a_vault_on_this_host(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /mnt/vault rw - nfs4 far:/v rw\n"
        "3 1 0:3 / /mnt/my\\040stick rw - fuse.sshfs far rw\nbroken\n4 1 0:4 / /mnt/vault/local rw - xfs /dev/b rw\n"
    )
    inside = risks.vault_inside("/srv/vault", mounts)
    assert inside is not None and "on this host" in inside.text
    assert risks.vault_inside("/mnt/vault/local/x", mounts) is not None
    assert risks.vault_inside("/mnt/vaulted", mounts) is not None
    for url in ("/mnt/vault", "/mnt/vault/deep", "/mnt/my stick/x", "s3://bucket/x"):
        assert risks.vault_inside(url, mounts) is None
    assert risks.vault_inside("/srv/vault", tmp_path / "absent") is None


def test_a_clock_that_nobody_keeps() -> None:
    assert [risks.clock_adrift(lambda code=code: code) is None for code in (0, 1, 4, 5, -1)] == [True] * 3 + [
        False,
        True,
    ]
    risks.clock_adrift()


def test_liveness() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if answers else 200)
            self.end_headers()
            self.wfile.write((answers or "OK").encode())

        def log_message(self, *_: object) -> None:
            return

    answers = ""
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        for each, hint in (("", None), ("load shedding", "KumoMTA says: load shedding")):
            answers = each
            thread = Thread(target=server.handle_request)
            thread.start()
            found = risks.not_alive(address)
            thread.join()
            assert found is None if hint is None else found is not None and found.text == hint
    for http in (address, "http://[", "ftp://x", "http://"):
        found = risks.not_alive(http)
        assert found is not None and found.level == "bad" and "does not answer" in found.text
    unknown = risks.not_alive(None)
    assert unknown is not None and unknown.level == "warning"
