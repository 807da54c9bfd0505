"""`kumodr install units`: said first, written once, nobody's file touched, and the loop runs as the unit says."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from install_site import Machine, machine

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and drop its rights")


@pytest.fixture
def site(tmp_path: Path, unpacked: Callable[[str], Path]) -> Iterator[Machine]:
    capture = unpacked("rocksdb-clean-stop")
    with machine(tmp_path / "a machine") as made:
        plan = {
            "version": 1, "site": "primary", "vault": {"url": "vault"}, "state": "state",
            "components": {
                "spool": {"meta": str(capture / "spool" / "meta"), "data": str(capture / "spool" / "data")},
                "logs": {"directories": [str(capture / "logs")]},
            },
            "runtime": {"kind": "systemd", "kumod": "kumomta.service"},
        }  # fmt: skip
        (made.folder / "kumodr.yaml").write_text(json.dumps(plan))
        made.kumodr("vault", "init", "--identity-out", str(tmp_path / "identity.txt"))
        yield made


def to(site: Machine) -> tuple[str, str]:
    return "--to", str(site.units)


def files(folder: Path) -> dict[str, int]:
    """Return the unit files by name, each with the number that changes when it is written anew."""
    return {each.name: each.stat().st_ino for each in folder.iterdir() if each.suffix in (".service", ".timer")}


def test_what_would_be_written_is_printed_and_nothing_is_changed(site: Machine) -> None:
    said = site.kumodr("install", "units", *to(site))
    assert f"would write {site.units}/kumodr-agent.service" in said
    for line in ("Type=notify", "ProtectSystem=strict", "OnCalendar=Sun *-*-* 02:00:00", "MemoryMax=2G"):
        assert f"    {line}" in said
    assert "would run systemctl daemon-reload" in said
    assert "nothing was changed; the same command with --apply does it" in said
    assert list(site.units.iterdir()) == []


def test_the_loop_runs_as_the_unit_says_and_a_second_time_changes_nothing(site: Machine) -> None:
    said = site.kumodr("install", "units", "--apply", *to(site))
    assert "kumodr install remove --apply" in said
    site.wait_until_protected()
    agent = site.unit("kumodr-agent.service")
    assert agent["enabled"] and site.unit("kumodr-verify.timer")["enabled"]
    assert agent["notified"][0] == "READY=1"
    assert agent["notified"][1].startswith("WATCHDOG=1\nSTATUS=")
    before = files(site.units)
    assert "wrote" not in site.kumodr("install", "units", "--apply", *to(site))
    assert files(site.units) == before
    site.kumodr("install", "units", "--apply", "--prune", *to(site))
    assert files(site.units).items() > before.items()
    assert site.unit("kumodr-agent.service")["pid"] == agent["pid"]
    assert "ok       protect" in site.kumodr("check", code=3)


def test_removing_takes_away_what_was_installed_and_leaves_what_was_stored(site: Machine) -> None:
    assert "install it with `kumodr install units`" in site.kumodr("install", "remove", *to(site), code=4)
    site.kumodr("install", "units", "--apply", "--prune", *to(site))
    site.wait_until_protected()
    said = site.kumodr("install", "remove", *to(site))
    assert said.count("would remove") == 5 and "nothing was changed" in said
    assert len(files(site.units)) == 5
    site.kumodr("install", "remove", "--apply", *to(site))
    assert files(site.units) == {}
    assert "`kumodr protect` was stopped" in site.kumodr("check", code=3)
    assert "primary-1" in site.kumodr("points")


@pytest.mark.parametrize("how", ["foreign", "edited", "link"])
def test_a_file_that_is_not_ours_as_it_stands_is_left_alone(site: Machine, how: str) -> None:
    unit = site.units / "kumodr-verify.timer"
    if how == "edited":
        site.kumodr("install", "units", "--apply", *to(site))
        unit.write_text(unit.read_text().replace("Sun", "Mon"))
    elif how == "link":
        (site.folder / "theirs").write_text("[Timer]\n")
        unit.symlink_to(site.folder / "theirs")
    else:
        unit.write_text("[Timer]\nOnCalendar=daily\n")
    text, before = unit.read_text(), files(site.units)
    said = site.kumodr("install", "units", "--apply", *to(site), code=5)
    assert str(unit) in said and ("was edited" in said) == (how == "edited")
    assert (unit.read_text(), files(site.units)) == (text, before)
    said = site.kumodr("install", "remove", "--apply", *to(site), code=5 if how == "edited" else 4)
    assert (unit.read_text(), files(site.units)) == (text, before)


def test_a_command_that_fails_is_named_and_goes_on_the_next_time(site: Machine) -> None:
    systemctl = site.folder / "programs" / "systemctl"
    good = systemctl.read_text()
    systemctl.write_text("#!/bin/sh\necho 'Failed to connect to bus: Host is down' >&2; exit 1\n")
    said = site.kumodr("install", "units", "--apply", *to(site), code=1)
    assert "`systemctl daemon-reload` failed: Failed to connect to bus: Host is down" in said
    systemctl.write_text(good)
    site.kumodr("install", "units", "--apply", *to(site))
    site.wait_until_protected()


def test_without_a_vault_nothing_is_installed(site: Machine) -> None:
    shutil.rmtree(site.folder / "vault")
    assert "kumodr vault init" in site.kumodr("install", "units", "--apply", *to(site), code=4)
    assert files(site.units) == {}


@NEEDS_ROOT
def test_services_that_could_not_write_are_not_installed(site: Machine) -> None:
    os.chown(site.folder / "vault", 12345, 12345)
    said = site.kumodr("install", "units", "--apply", *to(site), code=5)
    assert "belongs to user number 12345" in said and "chown" in said
    assert "there is no user 'kumodr-nobody'" in site.kumodr(
        "install", "units", "--user", "kumodr-nobody", *to(site), code=2
    )
    for each in ("vault", "state"):
        os.chown(site.folder / each, 65534, 65534)
    said = site.kumodr("install", "units", "--user", "nobody", *to(site))
    assert "    User=nobody\n    AmbientCapabilities=CAP_DAC_READ_SEARCH" in said
    assert files(site.units) == {}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_understands_the_units_and_finds_them_tight(site: Machine, tmp_path: Path) -> None:
    odd = tmp_path / "it's 100 % $HOME"
    odd.mkdir()
    plan = json.loads((site.folder / "kumodr.yaml").read_text())
    vault = str(site.folder / "vault")
    (odd / "kumodr.yaml").write_text(json.dumps(plan | {"vault": {"url": vault}, "state": "/var/lib/kumodr"}))
    words = ["--plan", str(odd / "kumodr.yaml"), "--prune", *to(site)]
    for each in json.loads(site.kumodr("install", "units", *words, json=True))["files"]:
        Path(each["path"]).write_text(each["text"])
    # A timer finds its service on the path of units, which is not this folder.
    done = site.run(["env", f"SYSTEMD_UNIT_PATH={site.units}:", "systemd-analyze", "verify", *map(str, units(site))])
    assert (done.returncode, done.stderr) == (0, "")
    for unit in units(site):
        if unit.suffix == ".service":
            words = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(unit)]
            assert site.run(words).returncode == 0, site.run(words).stdout[-300:]


def test_snapshots_of_prometheus_may_be_removed_where_it_is_asked_for_any(site: Machine) -> None:
    plan = json.loads((site.folder / "kumodr.yaml").read_text())
    prometheus = {"data": "/var/lib/prometheus", "url": "http://127.0.0.1:9090"}
    plan["components"]["prometheus"] = prometheus
    (site.folder / "kumodr.yaml").write_text(json.dumps(plan))
    said = site.kumodr("install", "units", *to(site))
    assert "    CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE\n" in said
    assert re.search(r"ReadWritePaths=.* -/var/lib/prometheus\n", said)
    del prometheus["url"]
    (site.folder / "kumodr.yaml").write_text(json.dumps(plan))
    said = site.kumodr("install", "units", *to(site))
    assert "CAP_DAC_OVERRIDE" not in said and not re.search(r"ReadWritePaths=.*/var/lib/prometheus", said)


def units(site: Machine) -> list[Path]:
    return sorted(site.units.iterdir())


@NEEDS_ROOT
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not here")
def test_the_rights_of_the_unit_are_enough_for_plain_files_of_another_user(
    tmp_path: Path, unpacked: Callable[[str], Path]
) -> None:
    capture = unpacked("localdisk-clean-stop")
    for path in (capture, *capture.rglob("*")):
        os.chown(path, 12345, 12345)
        path.chmod(0o700 if path.is_dir() else 0o600)
    with machine(tmp_path / "machine") as site:
        site.kumodr("init", "--spool", str(capture / "spool"), "--logs", str(capture / "logs"), "--vault", "vault",
                    code=3)  # fmt: skip
        site.kumodr("vault", "init", "--identity-out", str(tmp_path / "identity.txt"))
        words = ["setpriv", "--bounding-set=-all,+dac_read_search", "--no-new-privs"]
        without = ["setpriv", "--bounding-set=-all", "--no-new-privs"]
        program = [sys.executable, "-m", "kumodr", "backup"]
        assert site.run([*without, *program]).returncode == 1
        done = site.run([*words, *program])
        assert done.returncode == 0, done.stderr
        refused = site.run([*words, "touch", str(capture / "spool" / "data" / "mine")])
        assert refused.returncode != 0 and "Permission denied" in refused.stderr
