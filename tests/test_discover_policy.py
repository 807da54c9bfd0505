"""A policy is read as text: what it surely says is found, what it does not decide is told; nothing hurts the reader."""

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kumodr.discover.lua.parse import parse
from kumodr.discover.lua.tokens import NotLua
from kumodr.discover.policy import PolicySaid, read_policy
from kumodr.lab.kumod.config import load_config
from kumodr.lab.options import Options
from kumodr.lab.policy import policy as lab_policy
from kumodr.lab.site import create

MINIMAL = """
local kumo = require 'kumo'
local BASE = os.getenv 'KUMO_BASE' or 'kumo-a'
local SINK = os.getenv 'SINK_PORT' or '2526'

kumo.on('init', function()
  kumo.configure_accounting_db_path(BASE .. '/accounting.db')
  for _, name in ipairs { 'data', 'meta' } do
    kumo.define_spool {
      name = name,
      path = BASE .. '/spool/' .. name,
      kind = 'RocksDB',
      -- rocks_params = { paranoid_checks = true },
    }
  end
  kumo.configure_local_logs { log_dir = BASE .. '/logs', max_segment_duration = '1s' }
  kumo.start_http_listener { listen = '127.0.0.1:8000', trusted_hosts = { '127.0.0.1', '::1' } }
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = { '127.0.0.1' } }
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config {
    protocol = { smtp = { mx_list = { { name = 'sink', addr = '127.0.0.1:' .. SINK } } } },
    retry_interval = '5s', max_age = '7 days',
  }
end)
"""
"""The minimal policy of the facts, §10."""

PACKAGED = """--[[ The packaged example: https://docs.kumomta.com
kumo.define_spool { name = 'data', path = '/not/this', kind = 'RocksDB' }
]]
local kumo = require 'kumo'
local shaping = require 'policy-extras.shaping'
local dkim_sign = require 'policy-extras.dkim_sign'
local shaper = shaping:setup_with_automation { publish = { 'http://127.0.0.1:8008' }, subscribe = {} }
local dkim_signer = dkim_sign:setup { '/opt/kumomta/etc/policy/dkim_data.toml' }

kumo.on('init', function()
  kumo.define_spool({ name = "data", path = "/var/spool/kumomta/data" });
  kumo.define_spool({ name = "meta", path = [[/var/spool/kumomta/meta]] });
  kumo.configure_local_logs {
    log_dir = '/var/log/kumomta',
    headers = { 'Subject', 'X-Customer-ID' },
    per_record = {
      Reception = { suffix = '_recv', log_dir = '/var/log/kumomta/in' },
      ["Bounce"] = { suffix = '_bounce', log_dir = '/srv/bounces/' },
      Delivery = { template = [=[{{ id }}]=] },
      TransientFailure = { enable = false },
      Any = { suffix = '_any' },
    },
  }
  kumo.start_http_listener { listen = '0.0.0.0:8000' }
  for _, port in ipairs { 25, 587 } do
    kumo.start_esmtp_listener {
      listen = '0.0.0.0:' .. port, deferred_spool = port == 587, tls_private_key = '/etc/mail/privkey',
    }
  end
  kumo.configure_redis_throttles { node = { 'redis://redis:6379/', 'redis://other:6379/' } }
end)

kumo.on('smtp_server_message_received', function(msg)
  local domain = msg:from_header().domain
  msg:dkim_sign(kumo.dkim.rsa_sha256_signer {
    domain = domain, selector = 's1', headers = { 'From' },
    key = string.format('/srv/keys/%s/s1', domain),
  })
  msg:dkim_sign(kumo.dkim.ed25519_signer { key = { vault_mount = 'secret', vault_path = 'dkim/x' } })
end)
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., PolicySaid]:
    """Reads policies given as texts by file name; they lie in /etc/p as the mail server sees it."""

    def reading(text: str | bytes, environment: dict[str, str] | None = None, **others: str) -> PolicySaid:
        for name, each in {"init": text, **others}.items():
            (tmp_path / f"{name}.lua").write_bytes(each if isinstance(each, bytes) else each.encode())

        def locate(path: str) -> Path | None:
            return tmp_path / path.removeprefix("/etc/p/") if path.startswith("/etc/p/") else None

        return read_policy("/etc/p/init.lua", locate, {} if environment is None else environment)

    return reading


def test_the_minimal_policy(read: Callable[..., PolicySaid]) -> None:
    said = read(MINIMAL, {"KUMO_BASE": "/srv/kumo"})
    assert {name: (each.path, each.kind) for name, each in said.spools.items()} == {
        "data": ("/srv/kumo/spool/data", "rocksdb"),
        "meta": ("/srv/kumo/spool/meta", "rocksdb"),
    }
    assert said.logs == ["/srv/kumo/logs"] and said.http == ["127.0.0.1:8000"]
    assert said.unsegmented == said.deferred == said.unclear == []
    assert read(MINIMAL).logs == ["kumo-a/logs"]


def test_the_packaged_style(read: Callable[..., PolicySaid]) -> None:
    said = read(PACKAGED)
    assert {name: (each.path, each.kind) for name, each in said.spools.items()} == {
        "data": ("/var/spool/kumomta/data", "localdisk"),
        "meta": ("/var/spool/kumomta/meta", "localdisk"),
    }
    assert said.logs == ["/var/log/kumomta", "/var/log/kumomta/in", "/srv/bounces"]
    assert said.unsegmented == ["init.lua line 13"]
    assert said.deferred == ["kumo.start_esmtp_listener (init.lua line 26)"]
    assert said.redis == ["redis://redis:6379/", "redis://other:6379/"]
    assert set(said.named) == {
        "/opt/kumomta/etc/policy/dkim_data.toml", "/opt/kumomta/etc/dkim", "/etc/mail/privkey", "/srv/keys",
    }  # fmt: skip
    hints = ("Delivery has a template", "TransientFailure is not logged", "kept in a Vault server")
    assert len(said.unclear) == 3
    assert all(any(hint in each for each in said.unclear) for hint in hints)


def test_the_policy_that_a_lab_writes(tmp_path: Path, read: Callable[..., PolicySaid]) -> None:
    site = create(tmp_path / "lab", Options(redis=False, prometheus=False))
    config = load_config(site.root / "config" / "kumod.json")
    said = read(lab_policy(config, str(site.root)))
    assert said.spools["meta"].path == str(site.root / "spool" / "meta") and said.logs == [str(site.root / "logs")]
    assert said.unclear == []


def test_what_is_required_is_followed_into_its_functions(read: Callable[..., PolicySaid]) -> None:
    said = read(
        "local site = require 'site'\\nlocal kumo = require 'kumo'\\n"
        "kumo.on('init', function() site.spools('/srv', 'RocksDB'); site.logs() end)".replace("\\n", "\n"),
        site="""
            local kumo, M = require 'kumo', {}
            M.root = '/var/log'
            function M.spools(base, kind)
              for name, short in pairs({ data = 'd', meta = 'm' }) do
                kumo.define_spool { name = name, path = base .. '/' .. short, kind = kind }
              end
            end
            M.logs = function() kumo.configure_local_logs { log_dir = M.root .. '/mail' } end
            return M
        """,
    )
    assert {name: each.path for name, each in said.spools.items()} == {"data": "/srv/d", "meta": "/srv/m"}
    assert said.logs == ["/var/log/mail"] and said.unclear == []
    assert said.unsegmented == ["site.lua line 9"]


@pytest.mark.parametrize(
    ("text", "unclear"),
    [
        ("local p = io.open('x'):read() kumo.define_spool { name = 'data', path = p }", "do not follow from the text"),
        ("kumo.define_spool { name = 'data', path = '/a', kind = pick() }", "do not follow from the text"),
        ("if os.time() > 5 then kumo.define_spool { name = 'data', path = '/a' } end", "does not decide"),
        ("if os.time() > 5 then return end kumo.define_spool { name = 'data', path = '/a' }", "does not decide"),
        ("while true do kumo.define_spool { name = 'data', path = '/a' } end", "does not decide"),
        ("for i = 1, 2 do kumo.define_spool { name = 'data', path = '/a' .. i } end", "do not follow"),
        ("pcall(function() kumo.define_spool { name = 'data', path = '/a' } end)", "does not decide"),
        ("local d = '/a' local f = function() d = '/b' end kumo.define_spool { name='data', path=d }", "do not follow"),
        ("local c = { p = '/a' } change(c) kumo.define_spool { name = 'data', path = c.p }", "do not follow"),
        ("local c = { p = '/a' } c[key()] = '/b' kumo.define_spool { name = 'data', path = c.p }", "do not follow"),
        ("local c = { p = '/a' } if x() then c.p = '/b' end kumo.define_spool { name='data', path=c.p }", "do not"),
        ("local c = {} table.insert(c, '/a') kumo.configure_local_logs { log_dir = c[1] }", "log_dir does not follow"),
        ("kumo.configure_local_logs { log_dir = '/l', per_record = records() }", "per_record does not follow"),
        ("kumo.configure_local_logs { log_dir = '/l', per_record = { Any = { log_dir = f() } } }", "log_dir of Any"),
        ("kumo.start_http_listener { listen = address }", "the HTTP listener does not follow"),
        ("kumo.start_http_listener { listen = '0.0.0.0:8000', use_tls = true }", "has TLS"),
        ("kumo.dkim.rsa_sha256_signer { key = keys[domain] }", "has its key from does not follow"),
        ("dofile('/etc/more.lua')", "dofile"),
        ("local m = require 'gone.away'", "gone.away, which the policy requires"),
    ],
)  # fmt: skip
def test_what_the_text_does_not_decide_is_told_and_not_guessed(
    read: Callable[..., PolicySaid], text: str, unclear: str
) -> None:
    said = read(f"local kumo = require 'kumo'\n{text}\n")
    assert said.spools == {} and any(unclear in each for each in said.unclear), said
    assert all("line 2" in each or "gone.away" in each for each in said.unclear)


def test_a_condition_that_the_text_decides_is_decided(read: Callable[..., PolicySaid]) -> None:
    text = """
        local kumo = require 'kumo'
        local place = os.getenv 'PLACE'
        local big = place == 'big'
        if not place then error('no place') elseif big then
          kumo.configure_local_logs { log_dir = '/big', max_segment_duration = '5s' }
        else
          kumo.configure_local_logs { log_dir = '/small', max_segment_duration = '5s' }
        end
    """
    assert read(text, {"PLACE": "big"}).logs == ["/big"]
    assert read(text, {"PLACE": "x"}).logs == ["/small"]
    assert read(text).unclear == [] and read(text).logs == []
    unknown = read_policy("/etc/p/init.lua", lambda _: read(text).files[0], None)
    assert unknown.logs == ["/big", "/small"] and len(unknown.unclear) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\x1bLuaT\x00\x19\x93", "it is no text"),
        (b"kumo\x00", "it is no text"),
        (b"-" * (1 << 20) + b"x", "larger than 1 MiB"),
        ("(" * 100_000, "nested too deeply"),
        ("x = " + "{" * 100_000, "nested too deeply"),
        ("x = " + "not " * 100_000 + "y", "nested too deeply"),
        ("do " * 100_000, "nested too deeply"),
        ("local s = 'open\n", "line 1: a string that begins with ' has no end"),
        ("--[==[ open ]] \n", "line 1: what begins with [==[ has no end"),
        ("x = = 1", "line 1"),
        ("\n\nx = @", "line 3: '@' is not understood"),
        ("local function f(n) f(n) f(n) f(n) f(n) end f(1) " * 40, "more than is looked at"),
        ("for _, a in ipairs(t) do end local t = {" + "1," * 3000 + "} "
         "for _, a in ipairs(t) do for _, b in ipairs(t) do x = a .. b end end", "more than is looked at"),
    ],
)  # fmt: skip
def test_hostile_policies_are_refused_in_bounded_time(
    read: Callable[..., PolicySaid], text: str | bytes, reason: str
) -> None:
    began = monotonic()
    said = read(text)
    assert len(said.unclear) == 1 and reason in said.unclear[0], said.unclear
    assert monotonic() - began < 20


def test_policies_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "loop.lua").symlink_to("loop.lua")
    os.mkfifo(tmp_path / "fifo.lua")
    (tmp_path / "folder.lua").mkdir()
    for name, reason in (
        ("loop", "symbolic links"), ("fifo", "it is no file"), ("folder", "it is no file"), ("absent", "No such file"),
    ):  # fmt: skip
        said = read_policy(f"/p/{name}.lua", lambda path: tmp_path / path.removeprefix("/p/"), {})
        assert len(said.unclear) == 1 and reason in said.unclear[0]
    said = read_policy("/p/init.lua", lambda path: None, {})
    assert said.unclear == ["the policy /p/init.lua is not on this host: it cannot be read"]


def test_files_that_require_each_other_end(read: Callable[..., PolicySaid]) -> None:
    assert read("require 'a'", a="require 'b'", b="require 'a'\nrequire 'init'").unclear == []


def test_lua_is_read_as_lua_reads_it() -> None:
    parse(
        "#!/usr/bin/lua\nlocal x <const>, y <close> = 0x1F, 1e-3; goto o; ::o:: repeat x = #y until x ~= ~y // 2 ^ -3"
    )
    parse("function a.b.c:d(...) local t = {...; [1] = 2, f = function() return end} return t.f(), -x^2 end")
    parse("f'x''y'{1}:m[[z]].k[1] = a < b and c or not d; local s = \"\\z  \\x41\\065\\u{1F600}\\\n\" .. '\\''")
    for text in ("x", "local 1 = 2", "if x then", "f(", "return 1 2", "x = }", "a.b", "for x y", "local x ="):
        with pytest.raises(NotLua, match="line 1"):
            parse(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_policy_cut_or_garbled_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([MINIMAL, PACKAGED]))
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    garbled = text[:start] + data.draw(st.text(max_size=4)) + text[end:]
    try:
        parse(garbled)
    except NotLua as error:
        assert 1 <= error.line <= garbled.count("\n") + 1
