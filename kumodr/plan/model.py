"""The plan's shape: plain frozen dataclasses, the single source of validation, JSON Schema and sample.

pydantic validates them (`load.py`); they stay plain so that a plan already validated loads without it,
which is most of the start-up time of a command that finds nothing to do.
Durations are seconds. Paths in the file are relative to the file; here they are absolute.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Objectives:
    """Recovery objectives: the first three are RTO, the last three are RPO."""

    critical_services: float = 900.0
    full_system: float = 7200.0
    data: float = 14400.0
    queue: float = 300.0
    configuration: float = 3600.0
    analytics: float = 86400.0


@dataclass(frozen=True)
class VaultPlan:
    """Where recovery points are kept: a directory, `file:///…`, or an object store's address."""

    url: str


@dataclass(frozen=True)
class SpoolPlan:
    """The two halves of KumoMTA's spool. `kind` is found out from the files unless it is said."""

    meta: str
    data: str
    kind: Literal["auto", "rocksdb", "localdisk"] = "auto"


@dataclass(frozen=True)
class LogsPlan:
    """Every directory that KumoMTA writes delivery logs to, those of `per_record` too."""

    directories: tuple[str, ...]


@dataclass(frozen=True)
class ConfigPlan:
    """Files and folders of configuration, and the names of environment variables (`KUMO*` style patterns)."""

    paths: tuple[str, ...] = ()
    environment: tuple[str, ...] = ("KUMO*",)


@dataclass(frozen=True)
class RedisPlan:
    """A Redis server reached over the network, whose dump file is readable on this host."""

    url: str
    password_file: str | None = None
    password_env: str | None = None
    timeout: float = 60.0


@dataclass(frozen=True)
class PrometheusPlan:
    """A Prometheus server: its data folder, and its address when its admin API may make snapshots."""

    data: str
    url: str | None = None


@dataclass(frozen=True)
class Components:
    spool: SpoolPlan | None = None
    logs: LogsPlan | None = None
    config: ConfigPlan | None = None
    redis: RedisPlan | None = None
    prometheus: PrometheusPlan | None = None


@dataclass(frozen=True)
class KumodPlan:
    """How the mail server is reached: the base address of its HTTP listener."""

    http: str | None = None


@dataclass(frozen=True)
class Plan:
    version: Literal[1]
    site: str
    vault: VaultPlan
    state: str
    components: Components
    kumod: KumodPlan = field(default_factory=KumodPlan)
    objectives: Objectives = field(default_factory=Objectives)
