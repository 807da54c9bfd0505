"""Configuration of a whole site: what a compose project and systemd's units are made of, and their environment."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from captured import written_out
from compose_site import IMAGE, compose_project, make_image, needs_docker
from fake_systemctl import add_unit, fake_systemd

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.components.config import ConfigComponent
from kumodr.components.registry import vetter
from kumodr.plan.model import Components, ConfigPlan, LogsPlan, Plan, RedisPlan, RuntimePlan, VaultPlan
from kumodr.runtimes.compose_files import definition_of

COMPOSE = f"""version: "3.9"
services:
  kumod:
    image: "{IMAGE}"
    command: ["/bin/busybox", "sleep", "60"]
    env_file: ["${{WHICH:-kumod}}.env"]
    environment: {{KUMO_FROM_DOTENV: "${{FROM_DOTENV}}", OTHER: unwanted}}
    secrets: [dkim]
    networks: [inside]
    volumes: ["./policy:/policy", "./spool:/spool", "./logs:/logs", "named:/named", "/etc/hostname:/etc/hostname:ro"]
  idle: {{image: "{IMAGE}", networks: [inside]}}
networks: {{inside: {{internal: true}}}}
volumes: {{named: {{}}}}
secrets: {{dkim: {{file: ./keys/dkim.pem}}}}
"""
OVERRIDE = 'version: "3.9"\nservices: {kumod: {environment: {KUMO_FROM_OVERRIDE: "it\'s 1"}}}\n'


def component(runtime: RuntimePlan, **more: Any) -> ConfigComponent:
    parts = Components(config=ConfigPlan(), **more)
    plan = Plan(1, "site", VaultPlan("/v"), "/s", parts, runtime=runtime)
    return ConfigComponent(plan, system_clock, {"KUMO_HERE": "1"})


def filled(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_env", ".env")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@needs_docker
def test_a_compose_project_is_stored_whole(tmp_path: Path) -> None:
    make_image(tmp_path)
    site = tmp_path / "site"
    filled(site, kumod_env="KUMO_FROM_FILE=2\n", policy__init="-- policy", keys__dkim="", spool__meta="mail")
    (site / "keys" / "dkim.pem").write_text("secret")
    (site / "logs").mkdir()
    (site / "docker-compose.override.yml").write_text(OVERRIDE)
    with compose_project(site, COMPOSE, "FROM_DOTENV=3"):
        subprocess.run(["docker-compose", "up", "-d", "kumod"], cwd=site, check=True, capture_output=True)
        runtime = RuntimePlan("compose", directory=str(site), kumod="kumod")
        config = component(
            runtime, logs=LogsPlan((str(site / "logs"),)), redis=RedisPlan("x", data=str(site / "spool"))
        )
        facts = written_out(config, tmp_path / "restored")
        assert all(each.level == "good" for each in config.health())
    assert facts.clear["services"] == 1 and facts.clear["mounts_left_out"] == 0
    back = tmp_path / "restored" / "files" / str(site).lstrip("/")
    names = {str(each.relative_to(back)) for each in back.rglob("*") if each.is_file()}
    assert names == {
        "docker-compose.yml", "docker-compose.override.yml", ".env", "kumod.env", "policy/init", "keys/dkim.pem",
    }  # fmt: skip
    assert (tmp_path / "restored" / "files" / "etc" / "hostname").exists()
    words = (tmp_path / "restored" / "environment.kumod").read_text().splitlines()
    assert words == ["KUMO_FROM_DOTENV=3", "KUMO_FROM_FILE=2", "KUMO_FROM_OVERRIDE='it'\\''s 1'"]
    assert (tmp_path / "restored" / "environment.kumod").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "restored" / "environment").read_text() == "KUMO_HERE=1\n"
    verdict = vetter("config", system_clock)(tmp_path / "restored")
    assert verdict.facts == {"config_files": facts.clear["config_files"], "services": 1}


def test_files_that_the_compose_tool_merges_away_are_found(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "one.yml").write_text(
        "include: [more/two.yml, {path: [$THREE]}]\nx-y: !reset []\n"
        'services:\n  a: {env_file: [{path: a.env}, "${NONE:-b}.env"], extends: {file: base.yml, service: a}}\n'
    )
    for name in ("more/two.yml", "three.yml", "base.yml"):
        (tmp_path / name).write_text(f"services: {{x: {{env_file: {Path(name).stem}.env}}}}\n")
    for name in ("a.env", "b.env", "more/two.env", "three.env", "base.env"):
        (tmp_path / name).write_text("")
    found = definition_of(tmp_path, (), b"", {"COMPOSE_FILE": "one.yml", "THREE": "three.yml"})
    assert sorted(found.paths) == sorted(
        str(tmp_path / name)
        for name in ("one.yml", "more/two.yml", "three.yml", "base.yml", "a.env", "b.env", "more/two.env", "three.env",
                     "base.env")
    )  # fmt: skip
    assert definition_of(tmp_path, (Path("one.yml"),), b"", {}).paths[0] == str(tmp_path / "one.yml")
    (tmp_path / "b.env").unlink()
    found = definition_of(tmp_path, (Path("one.yml"),), b"", {"THREE": "three.yml"})
    assert found.left_out == (f"{tmp_path / 'b.env'}: it does not exist",)


def test_mounts_with_data_or_of_the_system_are_not_configuration(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    site = tmp_path / "site"
    filled(site, policy__x="x")
    filled(outside, data__x="x", rules__x="x", many__0="x", file="x")
    for number in range(2100):
        (outside / "many" / f"{number}").write_text("")
    volumes = [
        "./policy:/p", f"{outside}/data:/d", f"{outside}/rules:/r:ro,z", f"{outside}/many:/m:ro", f"{outside}/file:/f",
        "/:/host:ro", "/proc:/host/proc:ro", "/var/run/docker.sock:/docker.sock", "/var/lib/x:/x:ro", "named:/n",
        f"{outside}/none:/none",
    ]  # fmt: skip
    long = {"type": "bind", "source": f"{outside}/rules", "target": "/r2", "read_only": True}
    import yaml

    resolved = yaml.safe_dump({"services": {"a": {"volumes": [*volumes, long]}}}).encode()
    found = definition_of(site, (), resolved, {})
    assert sorted(found.mounts) == sorted([f"{outside}/rules", f"{outside}/file", f"{site}/policy"])
    assert [each.rpartition(": ")[0] for each in found.left_out] == [
        f"{outside}/{name}" for name in ("data", "many", "none")
    ]


def test_a_mount_that_cannot_be_read_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kumodr.runtimes import opening
    from kumodr.runtimes.protocol import Definition

    class Runtime:
        def services(self) -> tuple[str, ...]:
            return ()

        def definition(self) -> Definition:
            return Definition((str(tmp_path / "compose.yml"),), (str(tmp_path / "gone"),), ("data: large",))

    def runtime_of(_plan: Plan, *, say: object) -> Runtime:
        return Runtime()

    monkeypatch.setattr(opening, "runtime_of", runtime_of)
    config = component(RuntimePlan("compose", directory=str(tmp_path), kumod="kumod"))
    with pytest.raises(errors.FileUnreadable, match=r"compose\.yml"):
        written_out(config, tmp_path / "restored")
    (tmp_path / "compose.yml").write_text("")
    facts = written_out(config, tmp_path / "restored")
    assert facts.clear["mounts_left_out"] == 2
    assert any("gone" in each for each in facts.sealed["left_out"])
    assert [each.level for each in config.health()] == ["good", "warning", "warning"]


def test_units_drop_ins_and_the_environment_of_a_running_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, etc__unit="[Unit]", etc__dropin="[Service]", etc__default_env="A=1")
    unit, dropin, defaults = (str(tmp_path / "etc" / name) for name in ("unit", "dropin", "default.env"))
    files = [
        f"FragmentPath={unit}", f"DropInPaths={dropin} {tmp_path}/none",
        f"EnvironmentFiles={defaults} (ignore_errors=yes)", "EnvironmentFiles=/none/x (ignore_errors=yes)",
    ]  # fmt: skip
    config = component(RuntimePlan("systemd", kumod="kumomta.service"))
    with fake_systemd(tmp_path) as (folder, programs):
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        environment = {"KUMO_WORD": "spoken", "OTHER": "1"}
        add_unit(folder, "kumomta.service", "exec sleep 60", environment=environment, files=files)
        assert written_out(config, tmp_path / "before").clear["services"] == 0
        subprocess.run(["systemctl", "start", "--", "kumomta.service"], check=True)
        written_out(config, tmp_path / "restored")
    back = tmp_path / "restored" / "files" / str(tmp_path / "etc").lstrip("/")
    assert sorted(os.listdir(back)) == ["default.env", "dropin", "unit"]
    assert (tmp_path / "restored" / "environment.kumomta.service").read_text() == "KUMO_WORD=spoken\n"
