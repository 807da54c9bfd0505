"""Redis in all the ways that a site may have it: TLS, access lists, append-only files, inside a container."""

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
from captured import written_out
from certificates import make_certificates
from compose_site import compose_project, make_image_of, needs_docker
from servers import free_port, redis_server, running, wait_for

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.components.redis import APPEND_ONLY, DUMP, RedisComponent
from kumodr.components.redis_files import append_only, named_in
from kumodr.components.registry import vetter
from kumodr.plan.model import Components, Plan, RedisPlan, RuntimePlan, VaultPlan
from kumodr.runtimes.compose import ComposeRuntime

NOT_RUN = RuntimePlan()


def component(url: str, runtime: RuntimePlan = NOT_RUN, **options: Any) -> RedisComponent:
    parts = Components(redis=RedisPlan(url, **options))
    return RedisComponent(Plan(1, "lab", VaultPlan("/v"), "/s", parts, runtime=runtime), system_clock)


def test_tls_with_an_authority_and_a_client_certificate(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls")
    port, folder = free_port(), tmp_path / "redis"
    folder.mkdir()
    words = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    words += ["--tls-cert-file", f"{made}/server.crt", "--tls-key-file", f"{made}/server.key"]
    words += ["--tls-ca-cert-file", f"{made}/ca.crt", "--requirepass", "s3cret"]
    secret = tmp_path / "password"
    secret.write_text("s3cret")
    mine: dict[str, Any] = {"certificate": f"{made}/client.crt", "key": f"{made}/client.key"}
    url = f"rediss://127.0.0.1:{port}"
    with running("redis-server", *words, log=folder / "log"):
        wait_for("redis", lambda: b"Ready to accept" in (folder / "log").read_bytes())
        good = component(url, ca=f"{made}/ca.crt", password_file=str(secret), **mine)
        assert written_out(good, tmp_path / "restored").clear["keys"] == 0
        assert {each.level for each in good.health()} == {"good", "warning"}
        sent = component(url, through="transfer", ca=f"{made}/ca.crt", password_file=str(secret), **mine)
        assert written_out(sent, tmp_path / "sent").clear["keys"] == 0
        other = make_certificates(tmp_path / "other")
        with pytest.raises(errors.ComponentUnavailable, match="cannot be trusted"):
            written_out(component(url, ca=f"{other}/ca.crt", password_file=str(secret), **mine), tmp_path / "x")
        bads: list[dict[str, Any]] = [{"ca": f"{made}/ca.crt"}, {"ca": f"{made}/none", **mine}]
        for bad in bads:
            with pytest.raises(errors.ComponentUnavailable):
                written_out(component(url, password_file=str(secret), **bad), tmp_path / "x")
    assert vetter("redis", system_clock)(tmp_path / "restored").problem is None


def test_a_user_of_the_access_list_with_only_the_rights_that_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path / "redis") as (url, server):
        rights = ["+ping", "+info", "+time", "+bgsave", "+config|get"]
        server.acl_setuser("kumodr", enabled=True, passwords=["+s3cret"], commands=rights)
        monkeypatch.setenv("REDIS_PASSWORD", "s3cret")
        user = component(url, username="kumodr", password_env="REDIS_PASSWORD")
        server.set("a", "b")
        assert written_out(user, tmp_path / "restored").clear["keys"] == 1
        server.acl_setuser("kumodr", enabled=True, passwords=["+s3cret"], commands=["-bgsave"])
        with pytest.raises(errors.ComponentUnavailable, match=r"cannot be used: .*no permissions"):
            written_out(user, tmp_path / "x")


def test_append_only_files_are_whole_while_they_are_rewritten_under_load(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as (url, server):
        stop, written = threading.Event(), 0

        def write() -> None:
            nonlocal written
            with redis.Redis.from_url(url) as mine:
                while not stop.is_set():
                    mine.set(f"key-{written}", "value" * 50)
                    written += 1

        def rewrite() -> None:
            with redis.Redis.from_url(url) as mine:
                while not stop.wait(0.01):
                    try:
                        mine.bgrewriteaof()
                    except redis.ResponseError:
                        continue

        threads = [threading.Thread(target=each) for each in (write, rewrite)]
        for thread in threads:
            thread.start()
        try:
            wait_for("a rewrite under load", lambda: written > 200 and server.info()["aof_rewrites"] > 2)
            for round_ in range(6):
                before = written
                folder = tmp_path / f"restored-{round_}"
                facts = written_out(component(url), folder)
                after = written
                verdict = vetter("redis", system_clock)(folder)
                assert verdict.problem is None
                assert facts.clear["append_only_files"] == verdict.facts["append_only_files"] >= 3
                assert facts.clear["append_only_bytes"] == verdict.facts["append_only_bytes"]
                for count in (verdict.facts["loaded"], verdict.facts["loaded_from_append_only"]):
                    assert before <= count <= after + 1  # type: ignore[operator] # counts
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_command_that_was_being_written_is_left_out_and_said_and_damage_is_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", "yes") as (url, server):
        server.mset({f"key-{number}": "value" for number in range(20)})
        server.set("last", "value")
        facts = written_out(component(url), tmp_path / "restored")
    folder = tmp_path / "restored" / APPEND_ONLY
    (last,) = folder.glob("*.incr.aof")
    whole = last.read_bytes()
    last.write_bytes(whole[:-3])
    verdict = vetter("redis", system_clock)(tmp_path / "restored")
    assert verdict.problem is None
    assert verdict.facts["loaded"] == 21 and verdict.facts["loaded_from_append_only"] == 20
    assert "bytes of a command that was being written" in verdict.warnings[0]
    assert last.read_bytes() == whole[:-3], "what was restored is looked at, not changed"
    last.write_bytes(b"*3\r\n$nonsense" + whole)
    assert "append-only files" in str(vetter("redis", system_clock)(tmp_path / "restored").problem)
    last.write_bytes(whole)
    (manifest,) = folder.glob("*.manifest")
    manifest.rename(tmp_path / "manifest")
    assert "lack their manifest" in str(vetter("redis", system_clock)(tmp_path / "restored").problem)
    assert facts.sealed["append_only"] == "appendonly.aof"


def test_a_server_starts_on_what_was_restored(tmp_path: Path) -> None:
    for options in ((), ("--appendonly", "yes", "--appenddirname", "aof", "--appendfilename", "mine.aof")):
        name = f"redis-{len(options)}"
        with redis_server(tmp_path / name, *options) as (url, server):
            server.set("a", "b")
            written_out(component(url), tmp_path / f"{name}-restored")
        back = ("--appendonly", "yes", "--appendfilename", "mine.aof") if options else ()
        with redis_server(tmp_path / f"{name}-restored", *back) as (_, server):
            assert server.get("a") == b"b"


def test_a_folder_that_is_not_the_servers_is_told_from_it(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as (url, server), redis_server(tmp_path / "other") as (_, other):
        server.set("a", "b")
        other.save()
        with pytest.raises(errors.ComponentUnavailable, match="not the one that the server writes"):
            written_out(component(url, data=str(tmp_path / "other")), tmp_path / "x")
        with pytest.raises(errors.ComponentUnavailable, match="is not there"):
            written_out(component(url, data=str(tmp_path / "none")), tmp_path / "x")
        assert written_out(component(url, data=str(tmp_path / "redis")), tmp_path / "restored").clear["keys"] == 1


@pytest.mark.parametrize("appends", [False, True])
def test_a_server_whose_files_nobody_can_read_here_sends_its_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, appends: bool
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "s3cret")
    options = ("--appendonly", "yes") if appends else ()
    with redis_server(tmp_path / "redis", *options, password="s3cret") as (url, server):
        server.set("a", "b")
        sent = component(url, through="transfer", password_env="REDIS_PASSWORD")
        facts = written_out(sent, tmp_path / "restored")
        assert facts.clear["keys"] == 1 and facts.clear["append_only_files"] == (2 if appends else 0)
        assert all(each.level != "bad" for each in sent.health())
        monkeypatch.setenv("REDIS_PASSWORD", "wrong")
        with pytest.raises(errors.ComponentUnavailable, match="password is wrong or missing"):
            written_out(sent, tmp_path / "x")
        monkeypatch.setenv("REDIS_PASSWORD", "s3cret")
        server.acl_setuser("default", enabled=True, commands=["-sync", "-psync"])
        with pytest.raises(errors.ComponentUnavailable, match="does not send its dump"):
            written_out(sent, tmp_path / "x")
    verdict = vetter("redis", system_clock)(tmp_path / "restored")
    assert verdict.problem is None and verdict.facts["loaded"] == 1
    with redis_server(tmp_path / "restored", *options) as (_, server):
        assert server.get("a") == b"b"


@pytest.mark.parametrize("line", ["file ../x seq 1 type b", "file a seq 1 type z", "nonsense", "file .x seq 1 type i"])
def test_a_manifest_that_names_other_places_is_refused(line: str) -> None:
    with pytest.raises(errors.ComponentUnavailable, match="a line that is none"):
        named_in(line.encode())


def test_history_is_not_needed_and_files_that_never_come_are_said(tmp_path: Path) -> None:
    assert named_in(b"file a.1.base.rdb seq 1 type h\nfile a.2.base.rdb seq 2 type b\n# x\n") == ["a.2.base.rdb"]
    asked: list[str] = []

    def open_file(path: str) -> int:
        asked.append(path)
        if path.endswith(".manifest"):
            descriptor = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
            os.write(descriptor, b"file a.1.base.rdb seq 1 type b\n")
            return descriptor
        raise FileNotFoundError(path)

    with pytest.raises(errors.ComponentUnavailable, match="are replaced all the time"):
        append_only(open_file, "/data", "aof", "a")
    assert len(asked) == 20
    (tmp_path / "old.aof").write_text("old")
    (part,) = append_only(lambda path: os.open(path, os.O_RDONLY), str(tmp_path), None, "old.aof")
    assert (part.name, part.size) == ("old.aof", 3)
    os.close(part.descriptor)


COMPOSE = """version: "3.9"
services:
  redis:
    image: "{image}"
    command: ["/usr/bin/redis-server", "--dir", "/data", "--requirepass", "${{PASSWORD}}", "--appendonly", "yes"]
    networks: [inside]
    volumes: ["data:/data"]
networks: {{inside: {{internal: true}}}}
volumes: {{data: {{}}}}
"""


def nowhere(_runtime: ComposeRuntime, _service: str, _path: str) -> None:
    """Where this host has what a container sees, as for a user who may not look into Docker's volumes."""


@needs_docker
def test_inside_a_container_without_a_port_and_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image_of(tmp_path, "redis", ["/usr/bin/redis-server", "/usr/bin/redis-cli"])
    secret = tmp_path / "password"
    secret.write_text("s3cret")
    runtime = RuntimePlan("compose", directory=str(tmp_path), kumod="redis", redis="redis")
    options: dict[str, Any] = {"through": "exec", "password_file": str(secret)}
    inside = component("redis://127.0.0.1:6379", runtime, **options)
    with compose_project(tmp_path, COMPOSE.format(image=image), "PASSWORD=s3cret") as name:
        subprocess.run(["docker-compose", "up", "-d"], cwd=tmp_path, check=True, capture_output=True)

        def cli(*words: str) -> str:
            line = ["docker", "exec", "-e", "REDISCLI_AUTH", f"{name}_redis_1", "redis-cli", *words]
            environment = {**os.environ, "REDISCLI_AUTH": "s3cret"}
            return subprocess.run(line, env=environment, capture_output=True, text=True).stdout.strip()

        wait_for("redis", lambda: cli("PING") == "PONG")
        cli("SET", "a", "b")
        assert written_out(inside, tmp_path / "by-mount").clear["keys"] == 1
        assert {each.level for each in inside.health()} == {"good"}
        monkeypatch.setattr(ComposeRuntime, "host_path", nowhere)
        written_out(inside, tmp_path / "by-copy")
        secret.write_text("wrong")
        with pytest.raises(errors.ComponentUnavailable, match="password is wrong or missing"):
            written_out(inside, tmp_path / "x")
        secret.write_text("s3cret")
        cli("FLUSHALL")
        assert cli("GET", "a") == ""
        subprocess.run(["docker-compose", "stop", "-t", "5"], cwd=tmp_path, check=True, capture_output=True)
        for folder in ("by-mount", "by-copy"):
            verdict = vetter("redis", system_clock)(tmp_path / folder)
            assert verdict.problem is None
            assert verdict.facts["loaded"] == verdict.facts["loaded_from_append_only"] == 1
        # back onto the project: what was restored into the container's volume
        subprocess.run(["docker", "cp", f"{tmp_path}/by-copy/.", f"{name}_redis_1:/data"], check=True)
        subprocess.run(["docker-compose", "start"], cwd=tmp_path, check=True, capture_output=True)
        wait_for("redis", lambda: cli("PING") == "PONG")
        assert cli("GET", "a") == "b"
        assert (tmp_path / "by-copy" / DUMP).exists()
