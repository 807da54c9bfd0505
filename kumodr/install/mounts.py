"""What a sidecar sees of its host: every path where the host has it, so that the plan's paths hold for both.

Live data is mounted from where its own service mounts it: from the volume, which Docker then has ready, or from the
folder of a bind mount, which stays the same when what is in it is put in place anew.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.discover.compose_services import Composed, Service

_WHOLE = tuple(map(Path, ("/opt/kumodr", "/etc/kumodr", "/proc", "/sys", "/dev")))
_OF_THE_IMAGE = (*_WHOLE, *map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/tmp")))  # noqa: S108


@dataclass(frozen=True)
class Mount:
    """One mount: `kind` is "volume" or "bind", `source` the volume's name in the compose file or a path of the host."""

    kind: str
    source: str
    target: Path
    writes: bool = False

    def values(self) -> dict[str, Any]:
        """Return it as a compose file says it, in the long form, which knows no special characters."""
        more: dict[str, Any] = {"volume": {"nocopy": True}} if self.kind == "volume" else {}
        plain = {"type": self.kind, "source": self.source, "target": str(self.target)}
        return plain | ({} if self.writes else {"read_only": True}) | more


Sources = Mapping[Path, tuple[str, str]]
"""Where the services of a project have their data from: folders of this host, and kind and source of their mounts."""


def sources_of(composed: Composed, project: Path, volume: Callable[[str], Path | None]) -> Sources:
    """Given a project, its folder, and what finds a volume's folder on this host, return its sources."""
    found: dict[Path, tuple[str, str]] = {project: ("bind", str(project))}
    for service in composed.services:
        for mount in service.mounts:
            if mount.kind == "bind" and mount.source.startswith("/") and mount.source != "/":
                found[Path(mount.source)] = ("bind", mount.source)
            elif mount.kind == "volume" and mount.source:
                place = volume(mount.source)
                if place is not None:
                    found[place] = ("volume", mount.source)
    return found


def mounts_of(sources: Sources, read: Iterable[Path], write: Iterable[Path]) -> list[Mount]:
    """Given what is to be read and what is to be written, return the mounts, outer ones first.

    What is read lies below no mount that may be written, whatever else is written there. A disk that is mounted below
    a source gets a mount of its own: a read-only mount does not make the mounts below it read-only.

    Raise FileUnreadable where a path is not there, InstallUnsafe where it cannot be mounted.
    """
    found: dict[Path, Mount] = {}
    for path in read:
        if not os.path.lexists(path):
            raise errors.FileUnreadable(
                f"{path}, which the plan names, is not there, or not to be seen by this user",
                remedy="start the project once, run this as root, or correct kumodr.yaml",
            )
        root = _root(path, sources)
        kind, source = sources.get(root, ("bind", str(root)))
        found[root] = Mount(kind, source, root)
    written = {path: Mount(*sources.get(path, ("bind", str(path))), path, writes=True) for path in write}
    for path in read:
        over = [each for each in (*found, *written) if path.is_relative_to(each)]
        if max(over, key=lambda each: len(each.parts)) in written:
            raise errors.InstallUnsafe(
                f"{path} lies in a folder that the sidecar writes to", remedy="keep vault and state apart from it"
            )
    whole = found | written
    for path in whole:
        hidden = _hidden_by(path)
        if hidden is not None:
            raise errors.InstallUnsafe(f"{path} would hide {hidden} of kumodr's image", remedy="move it elsewhere")
    return [whole[path] for path in sorted(whole, key=lambda each: (len(each.parts), each))]


def mounts_as_in(service: Service) -> list[Mount]:
    """Given a service, return its data at the place where its own container has it, to be read."""
    found = [each for each in service.mounts if each.kind in ("volume", "bind") and each.source]
    return [Mount(each.kind, each.source, Path(each.target)) for each in found if _hidden_by(Path(each.target)) is None]


def _hidden_by(path: Path) -> Path | None:
    """Return what of the image would be hidden by a mount at a path, or lie below it, None where nothing does."""
    for each in _OF_THE_IMAGE:
        if path == each or path in each.parents or (path.is_relative_to(each) and each in _WHOLE):
            return each
    return None


def _root(path: Path, sources: Sources) -> Path:
    """Return the innermost source or disk that a path is on, the path itself where it is on none but the root disk."""
    for each in (path, *path.parents):
        if each in sources or (each != Path("/") and os.path.ismount(each)):
            return each
    return path
