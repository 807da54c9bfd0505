"""`kumomta-cli`: what written plans ask, answered by a lab's KumoMTA; and causes of slow mail from made-up metrics."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from test_mailserver import site  # noqa: F401 — the fixture

from kumodr.cli.main import main
from kumodr.lab.site import Site
from kumodr.ledger.records import parse
from kumodr.mailserver.performance import analyse
from kumodr.mailserver.rates import mean_between, rates_between


def asked(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kumodr.cli.kumomta_cli", *words], cwd=directory, capture_output=True, text=True
    )


def test_a_script_reads_the_depth_as_a_number(site: Site) -> None:  # noqa: F811
    site.sink_rules(mode="defer")
    assert main(["mail-test", "--plan", str(site.directory / "kumodr.yaml"), "--to", "a@b.test", "--limit", "0"]) == 3
    done = asked(site.directory, "queue", "depth")
    assert done.returncode == 0
    assert int(done.stdout) >= 1
    text = asked(site.directory, "queue", "status").stdout
    assert "b.test" in text
    site.sink_rules(mode="rules")
    assert asked(site.directory, "test", "--email", "someone@there.test").returncode == 0


def test_the_spool_is_compacted_through_kumomta(site: Site) -> None:  # noqa: F811
    done = asked(site.directory, "spool", "optimize")
    assert done.returncode == 0, done.stderr
    assert asked(site.directory, "spool", "status").returncode == 0
    site.stop(["kumod"])
    done = asked(site.directory, "spool", "optimize")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    site.start(["kumod"])


def metric(value: Any, label: str | None = None) -> dict[str, Any]:
    return {"value": {label: value} if label else value}


def test_causes_are_ranked_with_what_is_seen() -> None:
    before = {
        "total_messages_delivered": metric({"smtp_client": 100, "smtp_client:a": 100}, "service"),
        "message_save_latency": metric({"count": 10, "sum": 0.1}),
    }
    after = {
        "total_messages_delivered": metric({"smtp_client": 110, "smtp_client:a": 110}, "service"),
        "total_messages_transfail": metric({"smtp_client": 90}, "service"),
        "message_save_latency": metric({"count": 20, "sum": 2.1}),
        "scheduled_count_total": metric(20_000),
        "scheduled_by_domain": metric({"slow.test": 15_000, "b.test": 5_000}, "domain"),
        "rocks_spool_load_shed_active": metric({"/spool/meta": 1}, "path"),
        "memory_limit": metric(100),
        "memory_usage": metric(95),
        "disk_free_percent": metric({"data spool": 4}, "name"),
    }
    line = {"type": "TransientFailure", "id": "1", "response": {"code": 451, "content": "too  fast"}}
    records = [record for _ in range(3) if (record := parse(json.dumps(line).encode())) is not None]
    found = analyse(before, after, 10.0, records)
    assert found.rates.delivered == 1.0
    assert found.rates.deferred == 9.0
    assert found.answers == (("451 too fast", 3),)
    ranks = [each.rank for each in found.causes]
    assert ranks == sorted(ranks, key=["critical", "serious", "notable"].index)
    text = " ".join(each.evidence for each in found.causes)
    for part in ("/spool/meta", "200 ms", "20,000 messages", "slow.test", "95 %", "4 %", "90 % of attempts"):
        assert part in text
    assert all(each.remedy and each.cause and each.risk for each in found.causes)


def test_a_quiet_server_has_no_causes_and_a_restarted_one_no_negative_rates() -> None:
    assert analyse({}, {}, 1.0, ()).causes == ()
    before = {"total_messages_received": metric({"esmtp_listener": 500}, "service")}
    after = {"total_messages_received": metric({"esmtp_listener": 20}, "service")}
    assert rates_between(before, after, 2.0).received == 10.0
    assert mean_between({"x": metric({"count": 9, "sum": 9})}, {"x": metric({"count": 2, "sum": 1})}, "x") == 0.5
