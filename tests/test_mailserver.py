"""`kumodr health` and `kumodr mail-test`: on a lab's mail server that works, defers, refuses, is gone, or lies."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kumodr import errors
from kumodr.cli.main import main
from kumodr.lab.options import Options
from kumodr.lab.site import Site, create
from kumodr.mailserver.http import MailServer
from kumodr.mailserver.queues import queues_of


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    real = os.environ.get("KUMODR_TEST_KUMOD") or None
    made = create(tmp_path_factory.mktemp("mail") / "lab", Options(kumod=real, redis=False, prometheus=False))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def kumodr(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(site.directory)

    def call(*words: str) -> tuple[int, Any]:
        code = main([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_a_message_is_followed_to_its_delivery(kumodr: Any, site: Site) -> None:
    code, found = kumodr("mail-test", "--to", "someone@good.test")
    assert (code, found["how"]) == (0, "delivered")
    assert found["response"].startswith("250")
    index = (site.world / "index.jsonl").read_text()
    assert "someone@good.test" in index


def test_a_bounce_is_a_failure_and_a_deferral_an_open_question(kumodr: Any) -> None:
    code, found = kumodr("mail-test", "--to", "refused@there.test")
    assert (code, found["how"]) == (1, "bounced")
    assert found["response"].startswith("5")
    code, found = kumodr("mail-test", "--to", "deferred@there.test", "--limit", "3")
    assert (code, found["how"], found["ended"]) == (3, "waiting", None)


def test_health_says_what_works_and_what_does_not(kumodr: Any, site: Site) -> None:
    code, found = kumodr("health")
    assert code == 0, found
    assert {each["place"] for each in found["findings"]} >= {"smtp", "kumod", "queues"}
    site.stop(["kumod"])
    code, found = kumodr("health")
    assert code == 1
    bad = [each for each in found["findings"] if each["level"] == "bad"]
    assert {each["place"] for each in bad} >= {"smtp", "kumod"}
    assert all(each["remedy"] for each in bad)
    assert kumodr("mail-test", "--to", "a@b.test")[0] == 1
    site.start(["kumod"])


def test_real_metrics_are_counted_once(fixtures_directory: Path) -> None:
    document = json.loads((fixtures_directory / "api" / "metrics.json").read_text())
    found = queues_of(document)
    assert (found.scheduled, found.ready, found.depth) == (60, 0, 60)
    assert sum(count for _, count in found.by_domain) <= 60
    assert found.by_domain[0][1] == 4


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b'{"scheduled_count_total": {"value": "many"}, "ready_count": 3}', b"\xff" * 100, b"[" * 100_000],
)
def test_answers_that_make_no_sense_are_no_bug(body: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with suppress(errors.MailServerRefuses):
            assert queues_of(MailServer(f"http://127.0.0.1:{server.server_port}").metrics()).depth == 0
    finally:
        server.shutdown()
        server.server_close()
