"""Prometheus: blocks and the newest hours, read back by promtool."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from captured import written_out
from compose_site import compose_project, make_image_of, needs_docker
from servers import prometheus_server, scraped, wait_for

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.components.prometheus import PrometheusComponent
from kumodr.components.registry import vetter
from kumodr.plan.model import Components, Plan, PrometheusPlan, RuntimePlan, VaultPlan


def component(data: Path, url: str | None) -> PrometheusComponent:
    parts = Components(prometheus=PrometheusPlan(str(data), url))
    return PrometheusComponent(Plan(1, "lab", VaultPlan("/v"), "/s", parts), system_clock)


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """A data folder with closed blocks, made by promtool."""
    lines = ["# TYPE mails counter"]
    lines += [f'mails_total{{queue="q{number % 5}"}} {number} {1790000000 + 60 * number}' for number in range(600)]
    (tmp_path / "metrics.txt").write_text("\n".join([*lines, "# EOF"]) + "\n")
    words = ["promtool", "tsdb", "create-blocks-from", "openmetrics", tmp_path / "metrics.txt", tmp_path / "data"]
    subprocess.run(words, check=True, capture_output=True)
    return tmp_path / "data"


def test_closed_blocks_are_stored_and_read_back(blocks: Path, tmp_path: Path) -> None:
    facts = written_out(component(blocks, None), tmp_path / "restored")
    assert facts.clear["samples"] == 600
    assert not facts.clear["newest_hours_stored"]
    verdict = vetter("prometheus", system_clock)(tmp_path / "restored")
    assert verdict.problem is None
    assert verdict.facts["samples"] == 600
    assert [each.level for each in component(blocks, None).health()] == ["good", "warning"]


def test_a_snapshot_holds_the_newest_hours_and_is_cleared_away(tmp_path: Path) -> None:
    with prometheus_server(tmp_path / "prometheus", "--web.enable-admin-api") as address:
        data = tmp_path / "prometheus" / "data"
        foreign = data / "snapshots" / "20260101T000000Z-0123456789abcdef"
        foreign.mkdir(parents=True)
        facts = written_out(component(data, address), tmp_path / "restored")
        assert facts.clear["newest_hours_stored"]
        assert facts.clear["samples"] > 0
        assert list((data / "snapshots").iterdir()) == [foreign]
        assert all(each.level == "good" for each in component(data, address).health())
    assert vetter("prometheus", system_clock)(tmp_path / "restored").problem is None


def test_without_the_admin_api_closed_blocks_are_stored_and_the_lack_is_told(tmp_path: Path) -> None:
    with prometheus_server(tmp_path / "prometheus") as address:
        data = tmp_path / "prometheus" / "data"
        assert not written_out(component(data, address), tmp_path / "restored").clear["newest_hours_stored"]
        findings = component(data, address).health()
    assert any("admin API is off" in each.text and "--web.enable-admin-api" in each.remedy for each in findings)


def test_a_server_or_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.ComponentUnavailable, match="does not answer"):
        written_out(component(tmp_path, "http://127.0.0.1:1"), tmp_path / "x")
    with pytest.raises(errors.ComponentUnavailable, match="cannot be read"):
        written_out(component(tmp_path / "none", None), tmp_path / "x")
    assert any(each.level == "bad" for each in component(tmp_path / "none", "http://127.0.0.1:1").health())


def test_a_damaged_block_is_refused(blocks: Path, tmp_path: Path) -> None:
    written_out(component(blocks, None), tmp_path / "restored")
    block = next(each for each in (tmp_path / "restored").iterdir())
    (block / "index").write_bytes(b"no index")
    meta = json.loads((block / "meta.json").read_text())
    assert meta["stats"]["numSamples"] > 0
    problem = vetter("prometheus", system_clock)(tmp_path / "restored").problem
    assert problem is not None
    assert "promtool does not read" in problem


COMPOSE = """version: "3.9"
services:
  prometheus:
    image: "{image}"
    command: [/usr/bin/prometheus, --config.file=/prometheus.yml, --storage.tsdb.path={path}, --web.enable-admin-api]
    networks: [inside]
    volumes: ["./prometheus.yml:/prometheus.yml:ro", "data:/in-a-volume"]
networks: {{inside: {{internal: true}}}}
volumes: {{data: {{}}}}
"""


@needs_docker
@pytest.mark.parametrize("path", ["/in-a-volume", "/prometheus"])
def test_in_a_container_by_its_volume_or_copied_out(tmp_path: Path, path: str) -> None:
    image = make_image_of(tmp_path, "prometheus", [shutil.which("prometheus") or "prometheus"])
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs: [{job_name: a, static_configs: [{targets: ['127.0.0.1:9090']}]}]\n"
    )
    with compose_project(tmp_path, COMPOSE.format(image=image, path=path)) as name:
        subprocess.run(["docker-compose", "up", "-d"], cwd=tmp_path, check=True, capture_output=True)
        words = ["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"]
        container = f"{name}_prometheus_1"
        inspected = subprocess.run([*words, container], check=True, capture_output=True, text=True)
        address = f"http://{inspected.stdout.strip()}:9090"
        wait_for("prometheus and its first scrape", lambda: scraped(address))
        runtime = RuntimePlan("compose", directory=str(tmp_path), kumod="prometheus", prometheus="prometheus")
        plan = Plan(
            1, "lab", VaultPlan("/v"), "/s", Components(prometheus=PrometheusPlan(None, address)), runtime=runtime
        )
        mine = PrometheusComponent(plan, system_clock)
        facts = written_out(mine, tmp_path / "restored")
        assert facts.clear["newest_hours_stored"] and facts.clear["samples"] > 0
        left = subprocess.run(["docker", "exec", container, "ls", f"{path}/snapshots"], capture_output=True, text=True)
        assert left.stdout == ""
        assert [each.level for each in mine.health()] == ["good"]
        verdict = vetter("prometheus", system_clock)(tmp_path / "restored")
        assert verdict.problem is None
        assert verdict.facts["samples"] == facts.clear["samples"]
        asked = replace(plan, components=Components(prometheus=PrometheusPlan(None, "http://127.0.0.1:9090", "exec")))
        inside = PrometheusComponent(asked, system_clock)
        assert written_out(inside, tmp_path / "inside").clear["newest_hours_stored"]
        assert [each.level for each in inside.health()] == ["good"]
        deaf = replace(plan, components=Components(prometheus=PrometheusPlan(None, "http://127.0.0.1:1", "exec")))
        with pytest.raises(errors.ComponentUnavailable, match=r"at http://127\.0\.0\.1:1 does not answer"):
            written_out(PrometheusComponent(deaf, system_clock), tmp_path / "x")
        subprocess.run(["docker-compose", "rm", "-fs"], cwd=tmp_path, check=True, capture_output=True)
        with pytest.raises(errors.ComponentUnavailable):
            written_out(mine, tmp_path / "x")
        # a server on what was restored
        (tmp_path / "again").mkdir()
        shutil.copytree(tmp_path / "restored", tmp_path / "again" / "data")
        with prometheus_server(tmp_path / "again") as again:
            query = {"query": "count_over_time(up{instance='127.0.0.1:9090'}[1h])"}
            found = httpx.get(f"{again}/api/v1/query", params=query, timeout=5).json()["data"]["result"]
            assert int(found[0]["value"][1]) > 0


@needs_docker
def test_inside_a_container_whose_admin_api_is_off(tmp_path: Path) -> None:
    image = make_image_of(tmp_path, "prometheus", [shutil.which("prometheus") or "prometheus"])
    (tmp_path / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n")
    text = COMPOSE.format(image=image, path="/in-a-volume").replace(", --web.enable-admin-api", "")
    with compose_project(tmp_path, text):
        subprocess.run(["docker-compose", "up", "-d"], cwd=tmp_path, check=True, capture_output=True)
        runtime = RuntimePlan("compose", directory=str(tmp_path), kumod="prometheus", prometheus="prometheus")
        parts = Components(prometheus=PrometheusPlan(None, "http://127.0.0.1:9090", "exec"))
        mine = PrometheusComponent(Plan(1, "lab", VaultPlan("/v"), "/s", parts, runtime=runtime), system_clock)
        wait_for("prometheus", lambda: all(each.level != "bad" for each in mine.health()))
        assert any("admin API is off" in each.text for each in mine.health())
        assert not written_out(mine, tmp_path / "restored").clear["newest_hours_stored"]
