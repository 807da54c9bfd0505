"""The files that a compose project is made of: what it is read from, and what it mounts."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kumodr.discover.compose_services import Service
from kumodr.discover.mounts import Mount
from kumodr.discover.textfile import read_text, variables_in
from kumodr.runtimes.compose import Project

USUAL = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES = tuple(name.replace("compose.", "compose.override.") for name in USUAL)
_FOLDERS = ("policy", "monitoring")
"""Folders beside a compose file that hold configuration even where no service mounts them, as images may."""
_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/var/run", "/etc/localtime", "/etc/timezone", "/etc/hosts", "/usr", "/lib")


def has_project(directory: Path) -> bool:
    """Whether the compose tool finds a project in a directory."""
    return any((directory / name).is_file() for name in USUAL)


def project_of(
    directory: Path, files: Sequence[Path], profiles: Sequence[str], name: str | None, environment: Mapping[str, str]
) -> Project:
    """Given what was said of a project, return it with what the environment says beside, as the compose tool reads it:
    so the plan stands without that environment.
    """
    dotenv = variables_in(read_text(directory / ".env")[0])

    def said(variable: str) -> str:
        return environment.get(variable) or dotenv.get(variable, "")

    if not files and said("COMPOSE_FILE"):
        separator = said("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = [directory / each for each in said("COMPOSE_FILE").split(separator) if each]
    profiles = profiles or [each.strip() for each in said("COMPOSE_PROFILES").split(",") if each.strip()]
    name = name or environment.get("COMPOSE_PROJECT_NAME")
    return Project(directory, tuple(each.absolute() for each in files), tuple(profiles), name)


def project_files(project: Project) -> tuple[list[Path], list[str]]:
    """Given a project, return the files that it is read from, and what of them is not followed."""
    known = project.files or [project.directory / name for name in (*USUAL, *_OVERRIDES)]
    found: list[Path] = []
    unclear: list[str] = []
    waiting = [each for each in known if each.is_file()]
    while waiting and len(found) < 100:
        file = waiting.pop(0)
        if file in found:
            continue
        found.append(file)
        text, reason = read_text(file)
        if reason is not None:
            unclear.append(f"{file} is not read: {reason}")
            continue
        if file.suffix in (".yml", ".yaml"):
            waiting += [Path(os.path.normpath(file.parent / each)) for each in _named(text)]
    return [each for each in [*found, project.directory / ".env"] if each.is_file()], unclear


def configuration(
    project: Project,
    services: Sequence[Service],
    mail: str,
    live: Sequence[Path],
    volume: Callable[[str], Path | None],
) -> tuple[list[Path], list[str]]:
    """Given a project, its services, the mail server's name, the folders with live data, and what finds a volume's
    folder, return the files and folders to store as configuration, and what is mounted besides and not covered.

    A mounted file stands for the first folder below the project's that it is in, where that holds no live data: what
    lies beside a mounted `monitoring/prometheus.yml` belongs to it.
    """
    found, uncovered = project_files(project)
    found += [project.directory / name for name in _FOLDERS if (project.directory / name).is_dir()]
    for service in services:
        for mount in service.mounts:
            place = Path(mount.source) if mount.kind != "volume" else volume(mount.source) if mount.source else None
            what = f"{mount.source or 'a volume without a name'} of {service.name}, at {mount.target}"
            if mount.kind == "memory" or mount.source.startswith(_SYSTEM) or mount.source == "/":
                continue
            if place is not None and any(place == each or _below(place, each) for each in live):
                continue
            holds = place is not None and any(_below(each, place) for each in live)
            if mount.kind == "volume":
                uncovered += [] if holds else [what]
            elif holds or place == project.directory:
                uncovered.append(f"{what}: it holds live data too; name what is configuration in it with --config")
            elif place is not None and service.name != mail and _is_written(place, mount, project.directory):
                uncovered.append(f"{what}, where it is written to")
            elif place is not None and place.exists():
                found.append(_whole(place, project.directory, live))
    return outermost(found), list(dict.fromkeys(uncovered))


def outermost(paths: Sequence[Path]) -> list[Path]:
    """Given paths, return each once, without those that lie in another."""
    unique = list(dict.fromkeys(paths))
    return [each for each in unique if not any(_below(each, other) for other in unique)]


def _is_written(place: Path, mount: Mount, directory: Path) -> bool:
    """Whether a mount looks like data: a folder from outside the project that a service may write to. What the mail
    server mounts is configuration all the same: keys are often mounted without `:ro`."""
    return place.is_dir() and not mount.read_only and not _below(place, directory)


def _whole(source: Path, directory: Path, data: Sequence[Path]) -> Path:
    if not _below(source, directory):
        return source
    parts = source.relative_to(directory).parts
    folder = directory / parts[0]
    return source if len(parts) == 1 or any(each == folder or _below(each, folder) for each in data) else folder


def _below(path: Path, folder: Path) -> bool:
    return path != folder and path.is_relative_to(folder)


def _named(text: str) -> Iterator[str]:
    """Yield the further files that a compose file names: include, extends, env_file.

    Only nodes are looked at and no merge is made, so that aliases cannot make much out of little.
    """
    try:
        document = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    for each in _items(_get(document, "include")):
        yield from _paths(_get(each, "path") or each)
    services = _get(document, "services")
    for _, service in services.value if isinstance(services, yaml.MappingNode) else []:
        yield from _paths(_get(_get(service, "extends"), "file"))
        yield from _paths(_get(service, "env_file"))


def _paths(node: Any) -> Iterator[str]:
    for each in _items(node):
        path = _get(each, "path") or each
        text = path.value if isinstance(path, yaml.ScalarNode) else ""
        if text and "$" not in text and "://" not in text:
            yield text


def _items(node: Any) -> list[Any]:
    return node.value if isinstance(node, yaml.SequenceNode) else [] if node is None else [node]


def _get(node: Any, name: str) -> Any:
    pairs: list[tuple[Any, Any]] = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)
