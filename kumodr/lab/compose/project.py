"""The lab's compose project: its files, as those of any site that runs KumoMTA in containers.

SITE/docker-compose.yml, .env, policy/, monitoring/     what a user of KumoMTA would have
SITE/docker-compose.override.yml, kumodr.yaml           kumodr beside it, with its plan
SITE/lab.json                                           the options of `kumodr lab up`
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kumodr.durable import write_file
from kumodr.lab.kumod.config import Config
from kumodr.lab.options import Options, write_options
from kumodr.lab.policy import LOOPBACK, PRIVATE, policy
from kumodr.plan.render import render

SPOOL, LOGS = "/var/spool/kumomta", "/var/log/kumomta"
SINK = "sink:2526"

_COMPOSE = """\
# A mail site in containers. Written by `kumodr lab up --runtime compose`.
services:
  kumod:
    image: ${KUMO_IMAGE}
    user: root
    entrypoint: [/opt/kumomta/sbin/kumod, --policy, /opt/kumomta/etc/policy/init.lua, --user, kumod]
    environment:
      KUMO_NODE_ID: ${KUMO_NODE_ID}
      KUMO_POLICY: /opt/kumomta/etc/policy/init.lua
    ports:
      - "127.0.0.1:${KUMO_SMTP_PORT}:2525"
      - "127.0.0.1:${KUMO_HTTP_PORT}:8000"
    volumes:
      - ./policy:/opt/kumomta/etc/policy:ro
      - spool:/var/spool/kumomta
      - logs:/var/log/kumomta
    networks: [front, inside]
    healthcheck: {disable: true}
    stop_grace_period: 300s

  redis:
    image: ${REDIS_IMAGE}
    user: redis
    working_dir: /data
    command: [redis-server, --dir, /data, --save, "60 1", --bind, 0.0.0.0, --protected-mode, "no"]
    ports:
      - "127.0.0.1:${KUMO_REDIS_PORT}:6379"
    volumes:
      - redis-data:/data
    networks: [front, inside]

  kumo-prometheus:
    image: ${PROMETHEUS_IMAGE}
    user: "${KUMO_UID}:${KUMO_GID}"
    command:
      - prometheus
      - --config.file=/etc/prometheus/prometheus.yml
      - --storage.tsdb.path=/prometheus
      - --web.enable-admin-api
    ports:
      - "127.0.0.1:${KUMO_PROMETHEUS_PORT}:9090"
    volumes:
      - ./monitoring:/etc/prometheus:ro
      - prometheus-data:/prometheus
    networks: [front, inside]

  # The rest of the world: the server that takes the site's mail.
  sink:
    image: ${SINK_IMAGE}
    user: "${SINK_USER}"
    entrypoint: [python, -m, kumodr.lab.sink, --listen, "0.0.0.0:2526"]
    command: [--index, /world/index.jsonl, --control, /world/control.json]
    volumes:
      - ../world:/world
    networks: [inside]
    healthcheck: {disable: true}

networks:
  # For what is published on loopback. Nothing in it reaches the outside: nobody answers its addresses.
  front:
    driver_opts: {com.docker.network.bridge.enable_ip_masquerade: "false"}
  inside:
    internal: true

volumes:
  spool:
  logs:
  redis-data:
  prometheus-data:
"""

_SIDECAR = """\
# kumodr beside the mail site. It reads everything and can write to its vault, to its state and, to remove the
# snapshots that it asks for, to Prometheus's data.
services:
  kumodr:
    image: ${KUMODR_IMAGE}
    command: [protect]
    # kumod's own user reads a spool of any kind; that the volume is read-only keeps it from writing.
    user: "${KUMO_UID}:${KUMO_GID}"
    working_dir: /project
    env_file: .env
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    init: true
    restart: unless-stopped
    volumes:
      - spool:/var/spool/kumomta:ro
      - logs:/var/log/kumomta:ro
      - redis-data:/data:ro
      - prometheus-data:/prometheus
      - .:/project:ro
      - ${VAULT_DIRECTORY}:/vault
      - kumodr-state:/var/lib/kumodr
    networks: [inside]

volumes:
  kumodr-state:
"""

_MONITORING = """\
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: kumod
    static_configs: [{targets: ["kumod:8000"]}]
  - job_name: kumodr
    static_configs: [{targets: ["kumodr:9464"]}]
"""


def write_project(folder: Path, options: Options, environment: Mapping[str, str]) -> None:
    """Given the site's folder, write the project's files. `environment` is what its `.env` shall say."""
    settings = kumod_config(options)
    for name in ("policy", "monitoring"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lua = policy(settings, SPOOL, (*LOOPBACK, *PRIVATE))
    _write(folder / "docker-compose.yml", _COMPOSE)
    write_environment(folder, environment)
    _write(folder / "policy" / "init.lua", lua)
    _write(folder / "policy" / "kumod.json", json.dumps(asdict(settings), indent=2) + "\n")
    _write(folder / "monitoring" / "prometheus.yml", _MONITORING)
    write_options(folder / "lab.json", options)
    if options.sidecar:
        _write(folder / "docker-compose.override.yml", _SIDECAR)
        _write(folder / "kumodr.yaml", sidecar_plan("/vault"))


def write_environment(folder: Path, environment: Mapping[str, str]) -> None:
    """Given the site's folder, write its `.env`."""
    _write(folder / ".env", "".join(f"{name}={value}\n" for name, value in environment.items()))


def read_environment(folder: Path) -> dict[str, str]:
    """Given the site's folder, return what its `.env` says. Raise OSError."""
    lines = (folder / ".env").read_text().splitlines()
    return {name: value for name, mark, value in (line.partition("=") for line in lines) if mark and name[:1] != "#"}


def kumod_config(options: Options) -> Config:
    """Given the options, return the settings of the mail server, as its container sees the world."""
    return Config(
        meta=f"{SPOOL}/meta",
        data=f"{SPOOL}/data",
        logs=LOGS,
        nodeid_path=f"{SPOOL}/.nodeid",
        smtp="0.0.0.0:2525",
        http="0.0.0.0:8000",
        sink=SINK,
        kind=options.kind,
        retry_interval=options.retry_interval,
        max_retry_interval=options.max_retry_interval,
        max_age=options.max_age,
        max_segment_duration=options.max_segment_duration,
        write_buffer_size=options.write_buffer_size,
        seed=options.seed,
    )


def sidecar_plan(vault: str) -> str:
    """Given the vault's address as the sidecar sees it, return the plan of the sidecar."""
    values: dict[str, Any] = {
        "version": 1,
        "site": "lab",
        "vault": {"url": vault},
        "state": "/var/lib/kumodr/state",
        "components": {
            "spool": {"meta": f"{SPOOL}/meta", "data": f"{SPOOL}/data"},
            "logs": {"directories": [LOGS]},
            "config": {
                "paths": [
                    f"/project/{each}"
                    for each in (
                        "docker-compose.yml",
                        "docker-compose.override.yml",
                        ".env",
                        "policy",
                        "monitoring",
                        "kumodr.yaml",
                        "lab.json",
                    )
                ]
            },
            "redis": {"url": "redis://redis:6379"},
            "prometheus": {"data": "/prometheus", "url": "http://kumo-prometheus:9090"},
        },
        "protect": {"metrics": "0.0.0.0:9464"},
        "kumod": {"http": "http://kumod:8000"},
    }
    return render(values)


def _write(path: Path, text: str) -> None:
    write_file(path, text.encode(), mode=0o644)
