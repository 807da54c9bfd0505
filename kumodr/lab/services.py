"""The programs of a lab site: how each is started, and when it is ready."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kumodr import errors
from kumodr.durable import write_file
from kumodr.lab.kumod.config import Config
from kumodr.lab.policy import policy
from kumodr.lab.ports import answers, listens
from kumodr.lab.processes import Process, start

if TYPE_CHECKING:
    from kumodr.lab.site import Site


def launch(name: str, site: "Site") -> Process:
    """Given a service's name, start it. Raise LabFailed, ToolMissing."""
    command = {"sink": _sink, "redis": _redis, "prometheus": _prometheus, "kumod": _kumod}[name](site)
    environment = dict(os.environ)
    if name == "kumod":
        environment |= {"KUMO_NODE_ID_PATH": str(site.root / "config" / "nodeid"), "KUMO_LAB": "1"}
    return start(command, log_of(name, site), environment=environment, directory=site.directory)


def log_of(name: str, site: "Site") -> Path:
    """Return the file that a service's output goes to."""
    return (site.world if name == "sink" else site.root / "run") / f"{name}.log"


def ready(name: str, site: "Site") -> bool:
    """Say whether a service answers."""
    if name == "sink":
        return listens(site.sink_port)
    if name == "redis":
        return listens(site.addresses.redis)
    if name == "prometheus":
        return answers(f"http://127.0.0.1:{site.addresses.prometheus}/-/ready")
    return answers(f"{site.http}/api/check-liveness/v1") and listens(site.addresses.smtp)


def kumod_config(site: "Site") -> Config:
    """Given a site, return the settings of its mail server."""
    options = site.options
    return Config(
        meta=str(site.root / "spool" / "meta"),
        data=str(site.root / "spool" / "data"),
        logs=str(site.root / "logs"),
        nodeid_path=str(site.root / "config" / "nodeid"),
        smtp=site.smtp,
        http=site.http.removeprefix("http://"),
        sink=f"127.0.0.1:{site.sink_port}",
        kind=options.kind,
        retry_interval=options.retry_interval,
        max_retry_interval=options.max_retry_interval,
        max_age=options.max_age,
        max_segment_duration=options.max_segment_duration,
        write_buffer_size=options.write_buffer_size,
        seed=options.seed,
    )


def write_configuration(site: "Site") -> None:
    """Given a site, write its programs' configuration for the ports that it has now."""
    config = site.root / "config"
    settings = kumod_config(site)
    write_file(config / "kumod.json", json.dumps(asdict(settings), indent=2).encode() + b"\n", mode=0o644)
    (config / "policy").mkdir(exist_ok=True)
    write_file(config / "policy" / "init.lua", policy(settings, str(site.root / "run")).encode(), mode=0o644)
    if site.options.prometheus:
        text = (
            "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: kumod\n  static_configs:\n"
            f"  - targets: ['127.0.0.1:{site.addresses.http}']\n"
        )
        write_file(config / "prometheus.yml", text.encode(), mode=0o644)


def _sink(site: "Site") -> list[str]:
    words = ["--listen", f"127.0.0.1:{site.sink_port}", "--index", str(site.world / "index.jsonl")]
    return [sys.executable, "-m", "kumodr.lab.sink", *words, "--control", str(site.world / "control.json")]


def _redis(site: "Site") -> list[str]:
    return [
        _program("redis-server"),
        *("--port", str(site.addresses.redis), "--bind", "127.0.0.1"),
        *("--dir", str(site.root / "redis"), "--save", "", "--dbfilename", "dump.rdb"),
    ]


def _prometheus(site: "Site") -> list[str]:
    return [
        _program("prometheus"),
        f"--config.file={site.root / 'config' / 'prometheus.yml'}",
        f"--storage.tsdb.path={site.root / 'prometheus' / 'data'}",
        f"--web.listen-address=127.0.0.1:{site.addresses.prometheus}",
        "--web.enable-admin-api",
        "--log.level=warn",
    ]


def _kumod(site: "Site") -> list[str]:
    config = site.root / "config"
    if site.options.kumod is None:
        return [sys.executable, "-m", "kumodr.lab.kumod", "--config", str(config / "kumod.json")]
    command = [str(Path(site.options.kumod).resolve()), "--policy", str(config / "policy" / "init.lua")]
    return command + (["--user", "root"] if os.geteuid() == 0 else [])


def _program(name: str) -> str:
    import shutil

    path = shutil.which(name)
    if path is None:
        raise errors.ToolMissing(f"{name} is not on this machine")
    return path
