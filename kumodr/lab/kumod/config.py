"""What a stand-in is told: the JSON file named by --config."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Config:
    """Directories, addresses (`127.0.0.1:PORT`) and the settings of a policy; durations in seconds.

    `clock_offset` is added to the time, and with `seed` makes ids of node, rules and messages repeatable.
    """

    meta: str
    data: str
    logs: str
    nodeid_path: str
    smtp: str
    http: str
    sink: str
    kind: Literal["RocksDB", "LocalDisk"] = "RocksDB"
    hostname: str = "kumo.test"
    retry_interval: float = 1200.0
    max_retry_interval: float | None = None
    max_age: float = 604800.0
    max_segment_duration: float | None = None
    max_file_size: int = 1_000_000_000
    write_buffer_size: int | None = None
    connections: int = 8
    deferred_spool: bool = False
    seed: int | None = None
    clock_offset: float = 0.0
    mac: str | None = None


def load_config(path: Path) -> Config:
    """Given the file, return the configuration. Raise ValueError or TypeError for what it may not say."""
    return Config(**json.loads(path.read_text()))


def host_and_port(address: str) -> tuple[str, int]:
    """Given `host:port`, return both."""
    host, _, port = address.rpartition(":")
    return host, int(port)
