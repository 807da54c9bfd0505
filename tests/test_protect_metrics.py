"""The figures for Prometheus are what their document says, keep its conventions, and wake people when they must."""

import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.lab.ports import free_ports
from kumodr.protect.exporter import Collector, serve
from kumodr.protect.figures import Board, Figures

DOCS = Path(__file__).parent.parent / "docs"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def board() -> Board:
    figures = Figures(
        "primary",
        1,
        text_of_time(NOW),
        text_of_time(NOW - timedelta(seconds=2)),
        state="protected",
        recoverable_until=text_of_time(NOW - timedelta(seconds=3)),
        base="primary-1",
        base_taken=text_of_time(NOW - timedelta(hours=1)),
        accepted_messages=7,
        accepted_bytes=700,
        uploaded_bytes=400,
        components={"config": text_of_time(NOW)},
    )
    return Board(figures.with_rebase(text_of_time(NOW), "first", "a reason"))


@pytest.fixture
def scrape() -> object:
    """What a scrape of a real endpoint gives."""
    made = board()
    (port,) = free_ports(1)
    server, _ = serve(f"127.0.0.1:{port}", Collector(made, lambda: NOW, lambda: {"deep": NOW}))
    yield lambda: httpx.get(f"http://127.0.0.1:{port}/metrics").text
    server.shutdown()
    server.server_close()


def test_the_document_and_the_endpoint_name_the_same(scrape: Callable[[], str]) -> None:
    served = dict(re.findall(r"^# TYPE (\S+) (\w+)$", scrape(), re.MULTILINE))
    documented = dict(re.findall(r"^\| `(kumodr_\w+)` \| (\w+) \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert served == documented


def test_values_are_what_the_board_says_at_the_moment_of_the_scrape(scrape: Callable[[], str]) -> None:
    text = scrape()
    for line in (
        "kumodr_protected 1.0",
        "kumodr_recovery_point_age_seconds 3.0",
        "kumodr_accepted_messages_total 7.0",
        'kumodr_rebases_total{cause="first"} 1.0',
        f'kumodr_last_verified_timestamp_seconds{{level="deep"}} {NOW.timestamp()}',
    ):
        name, value = line.rsplit(" ", 1)
        (found,) = [each for each in text.splitlines() if each.startswith(f"{name} ")]
        assert float(found.rsplit(" ", 1)[1]) == pytest.approx(float(value), rel=1e-6)


def test_prometheus_own_linter_has_nothing_to_say(scrape: Callable[[], str]) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=scrape(), capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_port_that_is_taken_is_one_sentence(scrape: Callable[[], str]) -> None:
    (port,) = free_ports(1)
    server, _ = serve(f"127.0.0.1:{port}", Collector(board(), lambda: NOW, dict))
    with pytest.raises(errors.UsageWrong, match=r"protect\.metrics"):
        serve(f"127.0.0.1:{port}", Collector(board(), lambda: NOW, dict))
    server.shutdown()
    server.server_close()


def test_the_alert_rules_are_good() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(DOCS / "alerts.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_fire_when_they_must_and_not_before(tmp_path: Path) -> None:
    case = tmp_path / "test.yml"
    case.write_text(f"""
rule_files: [{DOCS / "alerts.yml"}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: kumodr_last_round_timestamp_seconds, values: "0+15x20 300x40"}}
      - {{series: kumodr_recovery_point_age_seconds, values: "1x20 15+15x40"}}
      - {{series: kumodr_protected, values: "1x20 0x60"}}
    alert_rule_test:
      - {{eval_time: 4m, alertname: KumodrNotRunning}}
      - {{eval_time: 4m, alertname: KumodrRecoveryPointOld}}
      - {{eval_time: 4m, alertname: KumodrNotProtected}}
      - {{eval_time: 4m, alertname: KumodrObjectiveMissed}}
      - eval_time: 8m
        alertname: KumodrNotRunning
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations:
              summary: The spool is not followed
              description: "`kumodr protect` does not run, or hangs: new mail is in no copy. Start it again, and read its log."
      - eval_time: 12m
        alertname: KumodrNotProtected
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations:
              summary: The vault does not take what the spool accepts
              description: "See the line that begins with PROBLEM in `kumodr status`; segments wait on local disk as long as protect.backlog allows."
""")  # noqa: E501
    done = subprocess.run(["promtool", "test", "rules", str(case)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
