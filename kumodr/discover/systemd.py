"""A mail site that is units of systemd: what `systemctl show` says of them, drop-ins included."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.components.protocol import Finding
from kumodr.discover import risks
from kumodr.discover.compose_files import outermost
from kumodr.discover.redis_settings import redis_settings
from kumodr.discover.site import ANYWHERE, CONFIG, POLICY, Located, Server, Site, reach_here
from kumodr.discover.textfile import read_text, variables_in
from kumodr.runtimes.commands import Runner, run

KUMOD = ("kumomta.service",)
_REDIS = ("redis-server.service", "redis.service", "valkey-server.service", "valkey.service")
_PROMETHEUS = ("prometheus.service",)
_OTHERS = ("kumo-tsa-daemon.service", "tsa-daemon.service", "kumo-proxy.service", "kumo-proxy-server.service")
_PROPERTIES = "LoadState,FragmentPath,DropInPaths,Environment,EnvironmentFiles,ExecStart,WorkingDirectory"
_LIMIT = 60.0
_DEBIAN_DATA = "/var/lib/prometheus/metrics2"


@dataclass(frozen=True)
class Unit:
    """A unit as it is loaded: its files, the words of its command, its environment."""

    name: str
    files: tuple[Path, ...]
    words: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    unread: tuple[str, ...]


def look_at_systemd(*, service: str | None, runner: Runner = run) -> Site | None:
    """Given the unit that is KumoMTA (None: the packages' name), return the site; None where systemd has none of these.

    Raise ServiceMissing where the unit that was named is not there.
    """
    names = (service if service.endswith(".service") else f"{service}.service",) if service else KUMOD
    kumod = next((unit for name in names if (unit := shown(name, runner))), None)
    if kumod is None:
        if service:
            raise errors.ServiceMissing(f"systemd has no unit {names[0]!r}", remedy="name another with --service")
        return None
    redis, prometheus = _first(_REDIS, runner), _first(_PROMETHEUS, runner)
    others = [unit for name in _OTHERS if (unit := shown(name, runner))]
    units = [unit for unit in (kumod, redis, prometheus, *others) if unit]
    uncovered = [text for unit in units for text in unit.unread]
    found: list[Finding | None] = []
    redis_server = _redis(redis, found, uncovered) if redis else None
    prometheus_server = _prometheus(prometheus, found, uncovered) if prometheus else None
    runtime = {
        "kind": "systemd",
        "kumod": kumod.name,
        "redis": redis.name if redis else None,
        "prometheus": prometheus.name if prometheus else None,
        "others": [unit.name for unit in others],
    }
    return Site(
        source="the units of systemd",
        runtime={name: value for name, value in runtime.items() if value},
        policy=_option(kumod.words, "--policy") or POLICY,
        # With a file that could not be read, what the others say may not count: it is better not known.
        environment=None if kumod.unread else kumod.environment,
        locate=_locate,
        reach=reach_here,
        configuration=lambda live: (_configuration(units, live), []),
        redis=redis_server,
        prometheus=prometheus_server,
        uncovered=tuple(uncovered),
        risks=tuple(each for each in found if each is not None),
    )


def shown(name: str, runner: Runner) -> Unit | None:
    """Given a unit's name, return what systemd has loaded of it, None where it has none or does not run here."""
    try:
        answer = runner(["systemctl", "show", f"--property={_PROPERTIES}", "--", name], limit=_LIMIT)
    except errors.ToolMissing:
        return None
    facts: dict[str, list[str]] = {}
    for line in answer.out.decode(errors="replace").splitlines():
        key, mark, value = line.partition("=")
        if mark and value:
            facts.setdefault(key, []).append(value)
    if answer.code or facts.get("LoadState") != ["loaded"]:
        return None
    environment: dict[str, str] = {}
    unread: list[str] = []
    for line in facts.get("Environment", []):
        pairs = (word.partition("=") for word in _words(line))
        environment.update({key: value for key, mark, value in pairs if mark})
    files = [
        Path(path) for line in facts.get("FragmentPath", []) + facts.get("DropInPaths", []) for path in _words(line)
    ]
    for line in facts.get("EnvironmentFiles", []):
        path, _, rest = line.partition(" (")
        text, reason = read_text(Path(path))
        if reason is None:
            environment.update(variables_in(text))
            files.append(Path(path))
        elif not (Path(path).exists() is False and "ignore_errors=yes" in rest):
            unread.append(f"{path} of {name} is not read: {reason}")
    command = re.search(r"argv\[\]=(.*?) ; ", "".join(facts.get("ExecStart", [])))
    words = _expanded(_words(command[1]) if command else [], environment)
    return Unit(name, tuple(files), words, environment, (facts.get("WorkingDirectory") or [""])[0], tuple(unread))


def _first(names: Sequence[str], runner: Runner) -> Unit | None:
    return next((unit for name in names if (unit := shown(name, runner))), None)


def _locate(path: str) -> Located:
    if path.startswith("/"):
        return Located(Path(path))
    text = f"{path} is no absolute path, so where it lies does not follow from the text"
    return Located(None, Finding("warning", text, "write it in full in the policy"))


def _redis(unit: Unit, found: list[Finding | None], uncovered: list[str]) -> Server:
    def read(path: str) -> str:
        text, reason = read_text(Path(path))
        if reason:
            uncovered.append(f"{path} of {unit.name} is not read: {reason}; run this as root to have it read")
        return text

    settings = redis_settings(unit.words, read)
    found.append(risks.redis_forgets(settings.save, settings.append_only, keeps_files=True))
    return Server(f"redis://127.0.0.1:{settings.port}", None, settings.password)


def _prometheus(unit: Unit, found: list[Finding | None], uncovered: list[str]) -> Server:
    data = _option(unit.words, "--storage.tsdb.path")
    if data is None and Path(_DEBIAN_DATA).is_dir():
        data = _DEBIAN_DATA
    if data is not None and not data.startswith("/"):
        data = f"{unit.folder}/{data}" if unit.folder.startswith("/") else None
    if data is None:
        uncovered.append(f"prometheus: {unit.name} does not say where its data lies; give --prometheus DIR")
    found.append(risks.admin_closed(any(word.startswith("--web.enable-admin-api") for word in unit.words)))
    url, _ = reach_here(_option(unit.words, "--web.listen-address") or f"{ANYWHERE}:9090")
    return Server(url, Path(data) if data else None)


def _configuration(units: Sequence[Unit], live: Sequence[Path]) -> list[Path]:
    """Return the files that make the units what they are: what the packages bring under /lib and /usr is left out.

    What lies beside a file that a command names belongs to it, in a folder below /etc or /opt that holds no live data:
    rules of Prometheus, files that Redis includes, modules of a policy.
    """
    found = [Path(CONFIG)] if Path(CONFIG).exists() else []
    for unit in units:
        found += [
            each for each in unit.files if not each.is_relative_to("/lib") and not each.is_relative_to("/usr/lib")
        ]
        for word in unit.words:
            path = Path(word.rpartition("=")[2])
            if path.suffix in (".conf", ".yml", ".yaml", ".toml", ".lua") and path.is_absolute() and path.exists():
                folder = path.parent
                whole = len(folder.parts) > 2 and folder.parts[1] in ("etc", "opt")
                found.append(folder if whole and not any(each.is_relative_to(folder) for each in live) else path)
    return outermost(found)


def _option(words: Sequence[str], name: str) -> str | None:
    """Return the value of an option, `--name value` or `--name=value`; None where it is not given."""
    for number, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and number + 1 < len(words):
            return words[number + 1]
    return None


def _expanded(words: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words with variables put in as systemd does: `$NAME` alone becomes several words, `${NAME}` one."""
    found: list[str] = []
    for word in words:
        alone = re.fullmatch(r"\$(\w+)", word)
        if alone:
            found += _words(environment.get(alone[1], ""))
        else:
            found.append(re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], ""), word))
    return tuple(found)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()
