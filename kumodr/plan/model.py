"""The plan's shape: plain frozen dataclasses, the single source of validation, JSON Schema and sample.

pydantic validates them (`validate.py`); they stay plain so that a plan already validated loads without it, which is
most of the start-up time of a command that finds nothing to do. The text beside a type explains the key; SECONDS marks
a duration (written `15m`, `2h`, `300`), PATH a path, relative to the plan's folder in the file and absolute here.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

SECONDS = "<seconds>"
PATH = "<path>"

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class Objectives:
    """The recovery objectives that `kumodr status` and the demo measure against."""

    __pydantic_config__: ClassVar = _STRICT
    critical_services: Annotated[float, SECONDS, "time to accept mail again"] = 900.0
    full_system: Annotated[float, SECONDS, "time until everything is as before"] = 7200.0
    data: Annotated[float, SECONDS, "time to bring data back"] = 14400.0
    queue: Annotated[float, SECONDS, "how old the newest copy of the spool may be"] = 300.0
    configuration: Annotated[float, SECONDS, "how old the newest copy of the configuration may be"] = 3600.0
    analytics: Annotated[float, SECONDS, "how old the newest copy of logs, Redis and Prometheus may be"] = 86400.0
    images: Annotated[float, SECONDS, "how old the newest look at the images may be"] = 7 * 86400.0


@dataclass(frozen=True)
class VaultPlan:
    """Where recovery points are kept. What an object store's provider has as environment variables counts too."""

    __pydantic_config__: ClassVar = _STRICT
    url: Annotated[str, PATH, "a directory, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix"]
    endpoint: Annotated[str | None, "https://HOST:PORT of a store that is compatible with S3 or Azure"] = None
    region: Annotated[str | None, "the bucket's region"] = None
    addressing: Annotated[Literal["path", "virtual"], "virtual: the bucket's name is in the host's name"] = "path"
    credentials_file: Annotated[str | None, PATH, "private to its owner; see docs/object-stores.md"] = None
    certificate_file: Annotated[str | None, PATH, "the certificate of a private authority, as PEM"] = None
    allow_http: Annotated[bool, "true: without TLS, in a network that is trusted"] = False
    timeout: Annotated[float, SECONDS, "how long one request may take, the 8 MiB of an object included"] = 60.0


@dataclass(frozen=True)
class SpoolPlan:
    """KumoMTA's spool. It is only ever read."""

    __pydantic_config__: ClassVar = _STRICT
    meta: Annotated[str, PATH, "the directory of the spool named meta"]
    data: Annotated[str, PATH, "the directory of the spool named data"]
    kind: Annotated[Literal["auto", "rocksdb", "localdisk"], "auto looks at the files"] = "auto"


@dataclass(frozen=True)
class LogsPlan:
    """Delivery logs."""

    __pydantic_config__: ClassVar = _STRICT
    directories: Annotated[tuple[str, ...], PATH, "every directory that logs are written to, those of per_record too"]


@dataclass(frozen=True)
class ConfigPlan:
    """Configuration: files, what defines the services of the runtime, and their environment and this process's."""

    __pydantic_config__: ClassVar = _STRICT
    paths: Annotated[tuple[str, ...], PATH, "files and folders: policy, keys, compose files, monitoring"] = ()
    environment: Annotated[tuple[str, ...], "patterns of variable names whose values are stored, sealed"] = ("KUMO*",)
    project: Annotated[bool, "also the runtime's: compose files, .env, mounts, secrets; units, drop-ins"] = True


@dataclass(frozen=True)
class RedisPlan:
    """A Redis server. Its files are read on this host, or through Docker where runtime.redis says so."""

    __pydantic_config__: ClassVar = _STRICT
    url: Annotated[str, "redis://HOST:PORT, or rediss:// for TLS, without a password"]
    through: Annotated[
        Literal["network", "exec", "transfer"],
        "exec: redis-cli inside runtime.redis, which url is seen from; transfer: the dump comes over the network too",
    ] = "network"
    data: Annotated[str | None, PATH, "its folder on this host, where the server knows it by another path"] = None
    username: Annotated[str | None, "of Redis's access list, where there is one"] = None
    password_file: Annotated[str | None, PATH, "a file that holds the password"] = None
    password_env: Annotated[str | None, "a variable that holds the password"] = None
    ca: Annotated[str | None, PATH, "TLS: what vouches for the server's certificate; with exec, as seen there"] = None
    certificate: Annotated[str | None, PATH, "TLS: this client's certificate, where the server asks for one"] = None
    key: Annotated[str | None, PATH, "TLS: the key of that certificate"] = None
    timeout: Annotated[float, SECONDS, "how long a background save may take"] = 60.0


@dataclass(frozen=True)
class PrometheusPlan:
    """A Prometheus server. Its blocks are read on this host, or through Docker where runtime.prometheus says so."""

    __pydantic_config__: ClassVar = _STRICT
    data: Annotated[str | None, PATH, "its storage.tsdb.path on this host; left out: asked of the container"] = None
    url: Annotated[str | None, "its address; with its admin API on, the newest hours are stored too"] = None
    through: Annotated[Literal["network", "exec"], "exec: url is asked by wget inside runtime.prometheus"] = "network"


@dataclass(frozen=True)
class ImagesPlan:
    """What the services of the runtime are made from: which images, by digest."""

    __pydantic_config__: ClassVar = _STRICT
    archives: Annotated[bool, "the images themselves too, so that recovery needs no registry"] = False
    timeout: Annotated[float, SECONDS, "how long Docker may take to hand out one image"] = 900.0


@dataclass(frozen=True)
class Components:
    """What is protected. A component that is left out is not."""

    __pydantic_config__: ClassVar = _STRICT
    spool: SpoolPlan | None = None
    logs: LogsPlan | None = None
    config: ConfigPlan | None = None
    redis: RedisPlan | None = None
    prometheus: PrometheusPlan | None = None
    images: ImagesPlan | None = None


@dataclass(frozen=True)
class ProtectPlan:
    """The loop that `kumodr protect` runs."""

    __pydantic_config__: ClassVar = _STRICT
    every: Annotated[float, SECONDS, "how often what changed in the spool and the logs is shipped"] = 1.0
    heartbeat: Annotated[float, SECONDS, "how often an idle site says that nothing changed"] = 30.0
    base_every: Annotated[float, SECONDS, "a new base of spool and logs, at the latest"] = 86400.0
    config_every: Annotated[float, SECONDS, "configuration at the latest; a change is stored within a minute"] = 1800.0
    redis_every: Annotated[float, SECONDS, "how often Redis is stored"] = 900.0
    prometheus_every: Annotated[float, SECONDS, "how often Prometheus is stored"] = 3600.0
    images_every: Annotated[float, SECONDS, "how often the images of the services are looked at"] = 1800.0
    backlog: Annotated[int, "bytes of local disk for what the vault does not take at the moment"] = 1_000_000_000
    metrics: Annotated[str | None, "HOST:PORT where Prometheus reads how protection stands"] = None


@dataclass(frozen=True)
class KeepPlan:
    """A point stays as long as one of these keeps it. What is written here takes the place of the whole default."""

    __pydantic_config__: ClassVar = _STRICT
    within: Annotated[float | None, SECONDS, "every point that is at most so much older than the newest"] = None
    last: Annotated[int, "the newest so many points"] = 0
    daily: Annotated[int, "the newest point of each of so many days, in UTC"] = 0
    weekly: Annotated[int, "the newest point of each of so many weeks"] = 0
    monthly: Annotated[int, "the newest point of each of so many months"] = 0
    yearly: Annotated[int, "the newest point of each of so many years"] = 0


_DAY = 86400.0


@dataclass(frozen=True)
class RetentionPlan:
    """What `kumodr prune` keeps. Never pruned: the newest, the last verified, and what a stream goes on from."""

    __pydantic_config__: ClassVar = _STRICT
    grace: Annotated[float, SECONDS, "how long what nobody needs is marked before it is deleted"] = 3 * _DAY
    spool: KeepPlan = field(default_factory=lambda: KeepPlan(within=7 * _DAY))
    logs: KeepPlan = field(default_factory=lambda: KeepPlan(within=7 * _DAY))
    ledger: KeepPlan = field(default_factory=lambda: KeepPlan(within=7 * _DAY))
    config: KeepPlan = field(default_factory=lambda: KeepPlan(within=30 * _DAY))
    redis: KeepPlan = field(default_factory=lambda: KeepPlan(within=7 * _DAY))
    prometheus: KeepPlan = field(default_factory=lambda: KeepPlan(within=7 * _DAY))
    images: KeepPlan = field(default_factory=lambda: KeepPlan(within=30 * _DAY))
    others: KeepPlan = field(default_factory=lambda: KeepPlan(within=30 * _DAY))

    def of(self, component: str) -> KeepPlan:
        """Given a component's name, return its policy."""
        named = {
            "spool": self.spool,
            "logs": self.logs,
            "ledger": self.ledger,
            "config": self.config,
            "redis": self.redis,
            "prometheus": self.prometheus,
            "images": self.images,
        }
        return named.get(component, self.others)


@dataclass(frozen=True)
class KumodPlan:
    """How the mail server is reached."""

    __pydantic_config__: ClassVar = _STRICT
    http: Annotated[str | None, "its HTTP listener; `kumodr check` asks it whether it is alive"] = None
    smtp: Annotated[str | None, "HOST:PORT of its SMTP listener; `kumodr mail-test` hands a message in there"] = None


@dataclass(frozen=True)
class RuntimePlan:
    """How this site's processes run, so that kumodr can start and stop them. `kumodr init` finds it out."""

    __pydantic_config__: ClassVar = _STRICT
    kind: Annotated[Literal["none", "compose", "systemd", "process"], "none: you start and stop by hand"] = "none"
    directory: Annotated[str | None, PATH, "compose: the project's folder, with .env; process: the lab's"] = None
    files: Annotated[tuple[str, ...], PATH, "compose: its files in order; none: as the compose tool finds them"] = ()
    profiles: Annotated[tuple[str, ...], "compose: the profiles that are on"] = ()
    project: Annotated[str | None, "compose: the project's name, where it is not the usual one"] = None
    kumod: Annotated[str | None, "the service or unit that is the mail server"] = None
    redis: Annotated[str | None, "the service or unit that is Redis"] = None
    prometheus: Annotated[str | None, "the service or unit that is Prometheus"] = None
    others: Annotated[tuple[str, ...], "further services or units of this site, like tsa-daemon"] = ()


@dataclass(frozen=True)
class RunbooksPlan:
    """How runbooks run, and where runs are recorded, so that they can be resumed."""

    __pydantic_config__: ClassVar = _STRICT
    state: Annotated[str | None, "postgresql://USER@HOST/DATABASE for several controllers; none: a file in `state`"] = (
        None
    )
    password_file: Annotated[str | None, PATH, "a file that holds the database's password"] = None
    password_env: Annotated[str | None, "a variable that holds the database's password"] = None
    canary: Annotated[str | None, "an address that takes the message by which a recovery is proved"] = None


@dataclass(frozen=True)
class Plan:
    """kumodr.yaml"""

    __pydantic_config__: ClassVar = _STRICT
    version: Annotated[Literal[1], "of this file's format"]
    site: Annotated[str, "this site's name; recovery points are called SITE-NUMBER"]
    vault: VaultPlan
    state: Annotated[str, PATH, "a directory for the node's key and what speeds backups up; private to kumodr"]
    components: Components
    protect: ProtectPlan = field(default_factory=ProtectPlan)
    retention: RetentionPlan = field(default_factory=RetentionPlan)
    kumod: KumodPlan = field(default_factory=KumodPlan)
    runtime: RuntimePlan = field(default_factory=RuntimePlan)
    runbooks: RunbooksPlan = field(default_factory=RunbooksPlan)
    objectives: Objectives = field(default_factory=Objectives)
