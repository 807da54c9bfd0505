"""The figures for Prometheus are what their document says, keep its conventions, and wake people when they must."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.lab.ports import free_ports
from kumodr.plan.model import Objectives
from kumodr.protect.exporter import Collector, serve
from kumodr.protect.figures import CAUSES, Board, Figures
from kumodr.recover.objectives import objectives_of
from kumodr.vault.proofs import Result

DOCS = Path(__file__).parent.parent / "docs"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ALLOWED = objectives_of(("spool", "config"), Objectives())
PROVED = {"deep": Result("primary-1", "hash", "deep", NOW, good=True)}


def board(**changes: Any) -> Board:
    figures = Figures(
        "primary",
        1,
        text_of_time(NOW),
        text_of_time(NOW - timedelta(seconds=2)),
        state="protected",
        epoch=3,
        acknowledged=44,
        recoverable_until=text_of_time(NOW - timedelta(seconds=3)),
        messages_at_risk=5,
        bytes_at_risk=500,
        base="primary-1",
        base_taken=text_of_time(NOW - timedelta(hours=1)),
        accepted_messages=7,
        accepted_bytes=700,
        uploaded_bytes=400,
        components={"config": text_of_time(NOW)},
    )
    made = Board(figures.with_rebase(text_of_time(NOW), "first", "a reason"))
    made.update(**changes)
    return made


@pytest.fixture
def scrape() -> Iterator[Callable[[Board], str]]:
    """What a scrape of a real endpoint gives."""
    servers: list[Any] = []

    def scraped(made: Board) -> str:
        (port,) = free_ports(1)
        server, _ = serve(f"127.0.0.1:{port}", Collector(made, lambda: NOW, ALLOWED, lambda: PROVED))
        servers.append(server)
        return httpx.get(f"http://127.0.0.1:{port}/metrics").text

    yield scraped
    for server in servers:
        server.shutdown()
        server.server_close()


def documented() -> dict[str, str]:
    rows = re.findall(
        r"^\| `(kumodr_\w+)` \| (\w+) \| [\w ]+ \| .+ \| `.+` \|$", (DOCS / "metrics.md").read_text(), re.M
    )
    return dict(rows)


def types(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))


def samples(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(kumodr.+) (\S+)$", text, re.MULTILINE)}


def test_the_document_and_the_endpoint_name_the_same(scrape: Callable[[Board], str]) -> None:
    text = scrape(board())
    assert types(text) == documented()
    assert {name.partition("{")[0] for name in samples(text)} == documented().keys()
    causes = re.findall(r"^\| `([a-z ]+)` \| [^|]+ \|$", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert tuple(causes) == CAUSES


def test_values_are_what_the_board_says_at_the_moment_of_the_scrape(scrape: Callable[[Board], str]) -> None:
    found = samples(scrape(board()))
    assert found["kumodr_protected"] == 1
    assert found["kumodr_recovery_point_age_seconds"] == 3
    assert found["kumodr_last_round_timestamp_seconds"] == NOW.timestamp() - 2
    assert (found["kumodr_messages_at_risk"], found["kumodr_bytes_at_risk"]) == (5, 500)
    assert (found["kumodr_stream_epoch"], found["kumodr_stream_segment"]) == (3, 44)
    assert found["kumodr_accepted_messages_total"] == 7
    assert found['kumodr_objective_seconds{component="spool"}'] == 300
    assert found['kumodr_objective_seconds{component="config"}'] == 3600
    assert found['kumodr_last_verified_timestamp_seconds{level="deep"}'] == NOW.timestamp()
    rebases = {cause: found[f'kumodr_rebases_total{{cause="{cause}"}}'] for cause in CAUSES}
    assert rebases == {**dict.fromkeys(CAUSES, 0), "first": 1}, "a counter begins at 0, or its first step is not seen"


def test_a_loop_that_hangs_is_not_protected_whatever_it_said_last(scrape: Callable[[Board], str]) -> None:
    found = samples(scrape(board(time=text_of_time(NOW - timedelta(minutes=1)))))
    assert found["kumodr_protected"] == 0
    assert found["kumodr_last_round_timestamp_seconds"] == NOW.timestamp() - 60


def test_what_is_not_known_has_no_sample(scrape: Callable[[Board], str]) -> None:
    unknown = {"recoverable_until": None, "messages_at_risk": None, "bytes_at_risk": None, "base_taken": None}
    text = scrape(board(**unknown))
    missing = documented().keys() - {name.partition("{")[0] for name in samples(text)}
    assert missing == {
        "kumodr_recovery_point_age_seconds",
        "kumodr_messages_at_risk",
        "kumodr_bytes_at_risk",
        "kumodr_last_base_timestamp_seconds",
    }
    assert "NaN" not in text
    assert "None" not in text


def test_prometheus_own_linter_has_nothing_to_say(scrape: Callable[[Board], str]) -> None:
    text = scrape(board())
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_port_that_is_taken_is_one_sentence() -> None:
    (port,) = free_ports(1)
    collector = Collector(board(), lambda: NOW, {}, dict)
    server, _ = serve(f"127.0.0.1:{port}", collector)
    with pytest.raises(errors.UsageWrong, match=r"protect\.metrics"):
        serve(f"127.0.0.1:{port}", collector)
    server.shutdown()
    server.server_close()


def test_the_alert_rules_are_good() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(DOCS / "alerts.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> dict[str, Mapping[str, Any]]:
    (group,) = yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@dataclass(frozen=True)
class Case:
    """An alert that is quiet at one time and fires at another; `value` is how it says $value then."""

    alert: str
    series: Mapping[str, str]
    quiet: str
    fires: str
    value: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    interval: str = "1m"
    """From one sample, and one look of Prometheus at its rules, to the next."""

    def document(self) -> dict[str, Any]:
        """This case as promtool reads it."""
        rule = rules()[self.alert]

        def filled(text: str) -> str:
            text = re.sub(r"\{\{ \$value[^}]*\}\}", self.value, text)
            return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: self.labels[found[1]], text)

        fired = {
            "exp_labels": {**rule["labels"], **self.labels},
            "exp_annotations": {name: filled(text) for name, text in rule["annotations"].items()},
        }
        return {
            "interval": self.interval,
            "input_series": [{"series": name, "values": values} for name, values in self.series.items()],
            "alert_rule_test": [
                {"eval_time": self.quiet, "alertname": self.alert, "exp_alerts": []},
                {"eval_time": self.fires, "alertname": self.alert, "exp_alerts": [fired]},
            ],
        }


ROUND = "kumodr_last_round_timestamp_seconds"
ALLOWS = 'kumodr_objective_seconds{component="%s"}'
STORED = 'kumodr_last_stored_timestamp_seconds{component="%s"}'
VERIFIED = 'kumodr_last_verified_timestamp_seconds{level="%s"}'
HOURS = 60

CASES = [
    Case("KumodrNotRunning", {ROUND: "0+60x20 1200x40"}, "20m", "24m"),
    Case("KumodrNotRunning", {ROUND: "0+60x20 stale"}, "20m", "24m"),
    Case(
        "KumodrNotRunning",
        {ROUND: "0+60x60", 'up{job="kumodr"}': "1x20 0x40"},
        "20m",
        "24m",
        labels={"job": "kumodr"},
    ),
    Case(
        "KumodrObjectiveMissed",
        {"kumodr_recovery_point_age_seconds": "1x10 60+60x40", ALLOWS % "spool": "300x60", ALLOWS % "config": "1x60"},
        "15m",
        "16m",
        "6m 0s",
    ),
    Case("KumodrNotProtected", {"kumodr_protected": "1x10 0x30"}, "14m", "17m"),
    Case("KumodrRecoveryPointOld", {"kumodr_recovery_point_age_seconds": "1x10 90x30"}, "11m", "13m", "1m 30s"),
    Case("KumodrBacklogGrows", {"kumodr_backlog_bytes": "0x10 1000000+1000000x40"}, "15m", "30m", "20M"),
    Case("KumodrVaultErrors", {"kumodr_vault_errors_total": "0+1x20 21+5x40"}, "20m", "30m"),
    Case(
        "KumodrRebasesOften",
        {
            'kumodr_rebases_total{cause="spool"}': f"0x{6 * HOURS} 2x{6 * HOURS}",
            'kumodr_rebases_total{cause="backlog"}': f"0x{6 * HOURS} 2x{6 * HOURS}",
            'kumodr_rebases_total{cause="age"}': f"0+1x{12 * HOURS}",
        },
        "6h",
        "7h",
        "4",
    ),
    Case("KumodrBaseOld", {"kumodr_last_base_timestamp_seconds": f"0x{50 * HOURS}"}, "48h", "49h", "2d 1h 0m 0s"),
    Case(
        "KumodrComponentOld",
        {ALLOWS % "config": f"3600x{3 * HOURS}", STORED % "config": f"0x{3 * HOURS}", STORED % "spool": "0x180"},
        "1h5m",
        "2h",
        "2h 0m 0s",
        {"component": "config"},
    ),
    Case(
        "KumodrComponentNeverStored",
        {ALLOWS % "redis": "1x180", ALLOWS % "config": "1x180", STORED % "config": "0x180"},
        "59m",
        "61m",
        labels={"component": "redis"},
    ),
    Case("KumodrVerificationStale", {VERIFIED % "deep": "0x200"}, "8d", "194h", interval="1h"),
    Case("KumodrVerificationStale", {ROUND: "1x180"}, "59m", "61m"),
    Case("KumodrVerificationStale", {ROUND: "1x180", VERIFIED % "shallow": "0x180"}, "59m", "61m"),
    Case(
        "KumodrRestoreTestStale",
        {VERIFIED % "restore": "0x900", VERIFIED % "deep": "0+3600x900"},
        "35d",
        "842h",
        interval="1h",
    ),
    Case("KumodrRestoreTestStale", {ROUND: "1x180", VERIFIED % "deep": "0x180"}, "59m", "61m"),
]


def promtool(tmp_path: Path, tests: list[dict[str, Any]], every: str = "1m") -> str:
    case = tmp_path / "test.yml"
    document = {"rule_files": [str(DOCS / "alerts.yml")], "evaluation_interval": every, "tests": tests}
    case.write_text(yaml.safe_dump(document))
    done = subprocess.run(["promtool", "test", "rules", str(case)], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_fires_when_it_must_and_not_before(tmp_path: Path) -> None:
    assert {case.alert for case in CASES} == rules().keys()
    for every in ("1m", "1h"):
        assert promtool(tmp_path, [case.document() for case in CASES if case.interval == every], every) == ""


def test_a_site_that_is_well_wakes_nobody(tmp_path: Path) -> None:
    """Two days of a loop that restarts once, takes a base a day, and is verified before the week is over."""
    two_days = 48 * HOURS
    series = {
        ROUND: f"0+60x{two_days}",
        'up{job="kumodr"}': f"1x{two_days}",
        "kumodr_protected": f"1x{24 * HOURS} 0x2 1x{24 * HOURS}",
        "kumodr_recovery_point_age_seconds": f"1x{24 * HOURS} 45 1x{24 * HOURS}",
        "kumodr_backlog_bytes": f"0x{24 * HOURS} 5000000 2000000 0x{24 * HOURS}",
        "kumodr_last_base_timestamp_seconds": f"0x{24 * HOURS} 86400x{24 * HOURS}",
        'kumodr_rebases_total{cause="first"}': f"1x{two_days}",
        'kumodr_rebases_total{cause="age"}': f"0x{24 * HOURS} 1x{24 * HOURS}",
        "kumodr_vault_errors_total": f"0x{24 * HOURS} 5x{24 * HOURS}",
        ALLOWS % "spool": f"300x{two_days}",
        STORED % "spool": f"0x{24 * HOURS} 86400x{24 * HOURS}",
        ALLOWS % "config": f"3600x{two_days}",
        STORED % "config": f"0+60x{two_days}",
        VERIFIED % "restore": f"0x{two_days}",
    }
    times = ["10m", "1d", "25h", "2d"]
    document = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": time, "alertname": alert, "exp_alerts": []} for alert in rules() for time in times
        ],
    }
    assert promtool(tmp_path, [document]) == ""
