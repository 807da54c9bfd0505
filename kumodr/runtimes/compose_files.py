"""The files that a compose project is made of, and those that it names.

`docker compose config` gives the project as the tool understands it, with absolute paths, but no longer the files that
it read; so bind mounts, secrets and configs are taken from there, and the files themselves from the project's folder.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kumodr.runtimes.protocol import Definition

USUAL = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_LARGEST_FILE = 4 << 20
_MOST_ENTRIES = 2000
_MOST_BYTES = 64 << 20
_OF_THE_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/var/run", "/var/log", "/var/lib", "/var/cache", "/usr")
_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?[-]([^}]*)|:?[?+][^}]*)?\})")


def definition_of(directory: Path, files: Sequence[Path], resolved: bytes, variables: Mapping[str, str]) -> Definition:
    """Given a project's folder and files (none: the usual ones), what the tool makes of it, and the variables that it
    sees, return its files, `.env`, the `env_file`s, secrets, configs, and the bind mounts that look like configuration.

    A bind mount looks so where it is a file, or a folder of the project or mounted read-only, that is not the system's
    and not large. Others are left out, with the reason: they are data.
    """
    dotenv = directory / ".env"
    values = {**_variables_in(dotenv), **variables}
    found = [dotenv] if dotenv.is_file() else []
    for file in _project_files(directory, files, values):
        _add_file(file, values, found)
    document = _mapping(_loaded(resolved))
    for kind in ("secrets", "configs"):
        for each in _mapping(document.get(kind)).values():
            if isinstance(each, dict) and isinstance(each.get("file"), str):
                found.append(directory / each["file"])
    left_out = [f"{path}: it does not exist" for path in found if not os.path.lexists(path)]
    paths = [os.path.normpath(path) for path in found if os.path.lexists(path)]
    mounts: list[str] = []
    for source, read_only in _bind_mounts(document, directory):
        reason = _why_not_configuration(source, directory, read_only=read_only)
        if reason is None:
            mounts.append(source)
        elif reason:
            left_out.append(f"{source}: {reason}")
    return Definition(*(tuple(dict.fromkeys(each)) for each in (paths, mounts, left_out)))


def _project_files(directory: Path, files: Sequence[Path], values: Mapping[str, str]) -> list[Path]:
    if files:
        return [directory / each for each in files]
    named = values.get("COMPOSE_FILE")
    if named:
        return [directory / each for each in named.split(values.get("COMPOSE_PATH_SEPARATOR") or os.pathsep)]
    first = next((directory / name for name in USUAL if (directory / name).is_file()), None)
    if first is None:
        return []
    overrides = (first.with_suffix(f".override{suffix}") for suffix in (".yml", ".yaml"))
    return [first, *(each for each in overrides if each.is_file())]


def _add_file(file: Path, values: Mapping[str, str], found: list[Path]) -> None:
    """Add a compose file, and the files that it names before the tool has merged them away."""
    if file in found:
        return
    found.append(file)
    try:
        document = _mapping(_loaded(file.read_bytes()[:_LARGEST_FILE]))
    except OSError:
        return
    for include in _list(document.get("include")):
        for name in _list(include.get("path") if isinstance(include, dict) else include):
            _add_file(file.parent / _filled(str(name), values), values, found)
    for service in _mapping(document.get("services")).values():
        parts = _mapping(service)
        for entry in _list(parts.get("env_file")):
            name = entry.get("path") if isinstance(entry, dict) else entry
            found.append(file.parent / _filled(str(name), values))
        extended = parts.get("extends")
        if isinstance(extended, dict) and extended.get("file"):
            _add_file(file.parent / _filled(str(extended["file"]), values), values, found)


def _bind_mounts(document: Mapping[str, Any], directory: Path) -> Iterator[tuple[str, bool]]:
    """Yield the source of each bind mount, absolute, and whether it is mounted read-only."""
    for service in _mapping(document.get("services")).values():
        for volume in _list(_mapping(service).get("volumes")):
            if isinstance(volume, dict):
                if volume.get("type") == "bind" and volume.get("source"):
                    yield os.path.normpath(directory / str(volume["source"])), bool(volume.get("read_only"))
            else:
                source, _, rest = str(volume).partition(":")
                if rest and source[:1] in "/.~":
                    mode = rest.rpartition(":")[2].split(",")
                    yield os.path.normpath(directory / os.path.expanduser(source)), "ro" in mode


def _why_not_configuration(source: str, directory: Path, *, read_only: bool) -> str | None:
    """Return why a bind mount is not taken as configuration, "" where that goes without saying, None where it is."""
    if os.path.isfile(source):
        return None if os.path.getsize(source) <= _MOST_BYTES else "it is larger than 64 MiB"
    inside = Path(source).is_relative_to(directory.absolute()) and Path(source) != directory.absolute()
    if source == "/" or (not inside and any(Path(source).is_relative_to(each) for each in _OF_THE_SYSTEM)):
        return ""
    if not os.path.isdir(source):
        return "" if os.path.lexists(source) else "it does not exist"
    if not inside and not read_only:
        return "it is mounted for writing, from outside the project"
    entries = size = 0
    for folder, _folders, names in os.walk(source):
        for name in names:
            entries += 1
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
        if entries > _MOST_ENTRIES or size > _MOST_BYTES:
            return "it is large, so it counts as data; name it in components.config.paths where it is not"
    return None


def _variables_in(dotenv: Path) -> dict[str, str]:
    try:
        lines = dotenv.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines if not line.strip().startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, mark, value in pairs if mark}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Given text with `$NAME`, `${NAME}` or `${NAME:-default}`, return it with the values."""

    def value(match: re.Match[str]) -> str:
        dollar, plain, braced, default = match.groups()
        return "$" if dollar else values.get(plain or braced) or default or ""

    return _VARIABLE.sub(value, text)


def _loaded(data: bytes) -> Any:
    """Return a document, None where it is none; compose's own tags (`!reset`, `!override`) count for nothing."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def without_tag(loader: Loader, _tag: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        return node.value

    Loader.add_multi_constructor("!", without_tag)
    try:
        return yaml.load(data, Loader)  # noqa: S506 — a safe loader
    except yaml.YAMLError:
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
