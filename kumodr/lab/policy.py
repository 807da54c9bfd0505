"""The Lua policy that a real kumod runs with in the lab (facts §10), from the same settings as the stand-in's."""

import ipaddress
from collections.abc import Sequence

from kumodr.lab.kumod.config import Config, host_and_port

LOOPBACK = ("127.0.0.1", "::1")
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""What Docker takes the networks of containers from; mail from this host comes from a gateway in one of them."""

_POLICY = """-- Written by `kumodr lab up`.
local kumo = require 'kumo'

kumo.on('init', function()
  for _, spool in ipairs {{ {{ name = 'data', path = '{data}' }}, {{ name = 'meta', path = '{meta}' }} }} do
    kumo.define_spool {{
      name = spool.name,
      path = spool.path,
      kind = '{kind}',
      min_free_space = '1%',
      min_free_inodes = '0%',{rocks}
    }}
  end
  kumo.configure_accounting_db_path('{base}/accounting.db')
  kumo.configure_local_logs {{
    log_dir = '{logs}',
    headers = {{ 'Subject' }},
    min_free_space = '1%',
    min_free_inodes = '0%',{segment}
  }}
  kumo.start_http_listener {{
    listen = '{http}',
    trusted_hosts = {{ {near} }},
  }}
  kumo.start_esmtp_listener {{
    listen = '{smtp}',
    hostname = '{hostname}',
    relay_hosts = {{ {near} }},
  }}
end)

kumo.on('smtp_server_message_received', function(msg)
  local tenant = msg:get_first_named_header_value 'X-Tenant'
  if tenant then
    msg:set_meta('tenant', tenant)
  end
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config {{
    protocol = {{
      smtp = {{ mx_list = {{ {sink} }} }},
    }},
    retry_interval = '{retry}s',{max_retry}
    max_age = '{max_age}s',
  }}
end)

kumo.on('get_egress_path_config', function(domain, source_name, site_name)
  return kumo.make_egress_path {{
    enable_tls = 'Disabled',
    prohibited_hosts = {{}}, -- the default forbids loopback
    connection_limit = {connections},
    idle_timeout = '1s',
    connect_timeout = '5s',
    data_timeout = '10s',
    data_dot_timeout = '10s',
    mail_from_timeout = '10s',
    rcpt_to_timeout = '10s',
  }}
end)
"""


def policy(config: Config, base: str, near: Sequence[str] = LOOPBACK) -> str:
    """Given the settings, a directory for what else kumod writes, and who may hand in mail, return the policy's Lua.

    Durations are whole seconds of at least one: kumod's retry interval must not be less (facts §2.3).
    """
    rocks = (
        f"\n      rocks_params = {{ write_buffer_size = {config.write_buffer_size} }},"
        if config.write_buffer_size
        else ""
    )
    segment = ""
    if config.max_segment_duration is not None:
        segment = f"\n    max_segment_duration = '{max(1, round(config.max_segment_duration))}s',"
    longest = f"\n    max_retry_interval = '{round(config.max_retry_interval)}s'," if config.max_retry_interval else ""
    return _POLICY.format(
        data=config.data,
        meta=config.meta,
        kind=config.kind,
        rocks=rocks if config.kind == "RocksDB" else "",
        base=base,
        logs=config.logs,
        segment=segment,
        http=config.http,
        smtp=config.smtp,
        hostname=config.hostname,
        near=", ".join(f"'{each}'" for each in near),
        sink=_hop(config.sink),
        retry=max(1, round(config.retry_interval)),
        max_retry=longest,
        max_age=max(1, round(config.max_age)),
        connections=config.connections,
    )


def _hop(sink: str) -> str:
    """Return an entry of mx_list: an address as it is, a name for kumod to look up."""
    host, _ = host_and_port(sink)
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f"'{sink}'"
    return f"{{ name = 'sink', addr = '{sink}' }}"
