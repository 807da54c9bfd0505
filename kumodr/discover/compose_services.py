"""The services of a compose project, from what the compose tool says that the project is."""

import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from kumodr import errors
from kumodr.discover.mounts import Mount
from kumodr.discover.site import ANYWHERE


@dataclass(frozen=True)
class Service:
    """One service: its words are entrypoint and command; `ports` are pairs of inside and published (host, port)."""

    name: str
    image: str
    words: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    ports: tuple[tuple[int, str, int], ...]
    host_network: bool
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """A volume that the project names: its name in Docker where that is given, its driver's device if it has one."""

    key: str
    name: str | None
    driver: str
    device: str | None


@dataclass(frozen=True)
class Composed:
    """A whole project."""

    services: tuple[Service, ...]
    volumes: Mapping[str, Volume]


def read_project(config: bytes, where: str) -> Composed:
    """Given what `config` printed, return the project. Raise ComposeInvalid where it is not what it should be."""
    try:
        document = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(config).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.ComposeInvalid(f"what the compose tool says of {where} is no YAML") from error
    whole = _mapping(document)
    files = {**_files(whole.get("configs")), **_files(whole.get("secrets"))}
    services = tuple(
        _service(str(name), _mapping(each), files) for name, each in _mapping(whole.get("services")).items()
    )
    volumes = {str(key): _volume(str(key), each) for key, each in _mapping(whole.get("volumes")).items()}
    return Composed(services, volumes)


def _service(name: str, values: Mapping[str, Any], files: Mapping[str, str]) -> Service:
    mounts = [_mount(each) for each in _list(values.get("volumes"))]
    mounts += [Mount("memory", "", _clean(each.split(":")[0])) for each in _words(values.get("tmpfs"))]
    for kind, folder in (("configs", "/"), ("secrets", "/run/secrets/")):
        for each in _list(values.get(kind)):
            source = str(each.get("source", "")) if isinstance(each, dict) else str(each)
            target = str((each.get("target") if isinstance(each, dict) else None) or source)
            if source in files:
                mounts.append(Mount("file", files[source], posixpath.join(folder, target), True))
    return Service(
        name=name,
        image=str(values.get("image") or ""),
        words=(*_words(values.get("entrypoint")), *_words(values.get("command"))),
        environment=_environment(values.get("environment")),
        mounts=tuple(each for each in mounts if each is not None),
        ports=tuple(_ports(values.get("ports"))),
        host_network=values.get("network_mode") == "host",
        profiles=tuple(_words(values.get("profiles"))),
    )


def _mount(value: Any) -> Mount | None:
    """Return a mount of the long form, or of the short one: `source:target:mode`, `target`."""
    if isinstance(value, dict):
        target, source = _clean(str(value.get("target") or "/")), str(value.get("source") or "")
        kinds: dict[str, Literal["bind", "volume", "memory"]] = {"bind": "bind", "volume": "volume", "tmpfs": "memory"}
        kind = kinds.get(str(value.get("type")))
        return Mount(kind, source, target, bool(value.get("read_only"))) if kind else None
    parts = str(value).split(":")
    if len(parts) == 1:
        return Mount("volume", "", _clean(parts[0]))
    bind = parts[0].startswith(("/", ".", "~"))
    return Mount("bind" if bind else "volume", parts[0], _clean(parts[1]), "ro" in parts[2:3])


def _ports(value: Any) -> Iterable[tuple[int, str, int]]:
    """Yield the published TCP ports: inside, and the host's address and port."""
    for each in _list(value):
        if isinstance(each, dict):
            inside, outside = str(each.get("target", "")), str(each.get("published") or "")
            host, protocol = str(each.get("host_ip") or ""), str(each.get("protocol") or "tcp")
        else:
            text, _, protocol = str(each).partition("/")
            found = re.fullmatch(r"(?:(\[?[0-9a-fA-F.:]*\]?):)?(\d+):(\d+)", text)
            if not found:
                continue
            host, outside, inside, protocol = (found[1] or "").strip("[]"), found[2], found[3], protocol or "tcp"
        if protocol == "tcp" and inside.isdigit() and outside.isdigit():
            yield int(inside), "127.0.0.1" if host in ("", ANYWHERE, "::") else host, int(outside)


def _environment(value: Any) -> dict[str, str]:
    """Return the variables. The tool prints a `$` of a value as `$$`."""
    if isinstance(value, dict):
        pairs = [(str(name), "" if each is None else str(each)) for name, each in value.items()]
    else:
        pairs = [(name, text) for name, mark, text in (str(each).partition("=") for each in _list(value)) if mark]
    return {name: text.replace("$$", "$") for name, text in pairs}


def _volume(key: str, value: Any) -> Volume:
    values = _mapping(value)
    external = values.get("external")
    name = values.get("name") or _mapping(external).get("name") or (key if external else None)
    options = _mapping(values.get("driver_opts"))
    device = str(options["device"]) if "bind" in str(options.get("o", "")).split(",") and "device" in options else None
    return Volume(key, str(name) if name else None, str(values.get("driver") or "local"), device)


def _files(value: Any) -> dict[str, str]:
    return {
        str(name): str(each["file"])
        for name, each in _mapping(value).items()
        if isinstance(each, dict) and "file" in each
    }


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.replace("$$", "$")
        try:
            return shlex.split(value)
        except ValueError:
            return value.split()
    return [str(each).replace("$$", "$") for each in _list(value)]


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _clean(path: str) -> str:
    return posixpath.normpath(path) if path.startswith("/") else path
