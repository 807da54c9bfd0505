"""Redis: saved by its own means, checked, and tried on a scratch server."""

import os
import time
from pathlib import Path

import pytest
from captured import written_out
from servers import redis_server

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.components.redis import DUMP, RedisComponent
from kumodr.components.registry import vetter
from kumodr.plan.model import Components, Plan, RedisPlan, VaultPlan


def component(url: str, **options: object) -> RedisComponent:
    parts = Components(redis=RedisPlan(url, **options))  # type: ignore[arg-type] # options are the plan's own keys
    return RedisComponent(Plan(1, "lab", VaultPlan("/v"), "/s", parts), system_clock)


def test_what_was_written_last_is_in_the_dump_and_loads(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as (url, server):
        for round_ in range(3):  # saves within one second of each other
            server.set(f"key-{round_}", "value")
            folder = tmp_path / f"restored-{round_}"
            facts = written_out(component(url), folder)
            assert facts.clear["keys"] == round_ + 1
            verdict = vetter("redis", system_clock)(folder)
            assert verdict.problem is None
            assert verdict.facts["loaded"] == round_ + 1
        assert {each.level for each in component(url).health()} == {"good", "warning"}


def test_a_save_that_is_already_running_is_waited_for(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--rdb-key-save-delay", "20000") as (url, server):
        for number in range(20):
            server.set(f"key-{number}", "value")
        server.bgsave()
        server.set("late", "value")
        assert written_out(component(url), tmp_path / "restored").clear["keys"] == 21
        assert vetter("redis", system_clock)(tmp_path / "restored").facts["loaded"] == 21


def test_the_password_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    with redis_server(tmp_path / "redis", password="s3cret") as (url, server):
        server.set("a", "b")
        assert written_out(component(url, password_file=str(secret)), tmp_path / "one").clear["keys"] == 1
        monkeypatch.setenv("REDIS_PASSWORD", "s3cret")
        assert written_out(component(url, password_env="REDIS_PASSWORD"), tmp_path / "two").clear["keys"] == 1
        monkeypatch.setenv("REDIS_PASSWORD", "wrong")
        for wrong in (component(url, password_env="REDIS_PASSWORD"), component(url)):
            with pytest.raises(errors.ComponentUnavailable, match="password is wrong or missing") as caught:
                written_out(wrong, tmp_path / "three")
            assert "s3cret" not in str(caught.value)


def test_a_server_that_is_gone_or_cannot_save_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.ComponentUnavailable, match="cannot be used"):
        written_out(component("redis://127.0.0.1:1"), tmp_path / "x")
    with redis_server(tmp_path / "redis", "--dbfilename", "d.rdb") as (url, server):
        server.set("a", "b")
        os.mkdir(tmp_path / "redis" / "d.rdb")  # a rename over a directory fails, as on a full disk
        with pytest.raises(errors.ComponentUnavailable, match="cannot save its data"):
            written_out(component(url), tmp_path / "y")
        assert any(each.level == "bad" for each in component(url).health())


def test_a_save_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--rdb-key-save-delay", "1000000") as (url, server):
        server.mset({f"key-{number}": "value" for number in range(30)})
        begun = time.monotonic()
        with pytest.raises(errors.ComponentUnavailable, match="did not end its save"):
            written_out(component(url, timeout=0.5), tmp_path / "x")
        assert time.monotonic() - begun < 5


def test_a_damaged_dump_is_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as (url, server):
        server.set("key", "value" * 100)
        written_out(component(url), tmp_path / "restored")
    data = bytearray((tmp_path / "restored" / DUMP).read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "restored" / DUMP).write_bytes(data)
    assert vetter("redis", system_clock)(tmp_path / "restored").problem == "a Redis server does not load the dump"
