"""Where what a container sees lies on its host."""

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kumodr.components.protocol import Finding
from kumodr.discover.site import Located


@dataclass(frozen=True)
class Mount:
    """One mount of a service: a folder of the host, a volume by its name in the compose file ("": without a name), or
    memory. `file` is what `configs` and `secrets` put there."""

    kind: Literal["bind", "volume", "memory", "file"]
    source: str
    target: str
    read_only: bool = False


def mount_of(mounts: Sequence[Mount], inside: str) -> Mount | None:
    """Given a service's mounts and a path inside, return the mount that it lies on, the innermost; None: on none."""
    path = posixpath.normpath(inside)
    over = [each for each in mounts if path == each.target or path.startswith(each.target.rstrip("/") + "/")]
    return max(over, key=lambda each: len(each.target), default=None)


def located(mounts: Sequence[Mount], inside: str, service: str, volume: Callable[[str], Path | None]) -> Located:
    """Given a service's mounts, a path inside and what finds a volume's folder, return where it lies on this host."""
    if not inside.startswith("/"):
        text = f"{inside} is no absolute path, so where it lies does not follow from the text"
        return Located(None, Finding("warning", text, "write it in full in the policy"))
    path = posixpath.normpath(inside)
    mount = mount_of(mounts, path)
    if mount is None:
        text = f"{path} of {service} is on no volume: it is lost with the container"
        return Located(None, Finding("bad", text, f"mount a volume there: `volumes: [NAME:{path}]` in the service"))
    if mount.kind == "memory":
        text = f"{path} of {service} is in memory: it is lost with the container"
        return Located(None, Finding("bad", text, "mount a volume there instead of tmpfs"))
    if mount.kind == "volume" and not mount.source:
        text = f"{path} of {service} is on a volume without a name: `down -v` or a new container loses it"
        return Located(None, Finding("bad", text, f"give the volume a name: `volumes: [NAME:{mount.target}]`"))
    base = Path(mount.source) if mount.kind != "volume" else volume(mount.source)
    if base is None:
        text = f"the volume {mount.source}, which holds {path} of {service}, is not there yet, or is not on this host"
        return Located(None, Finding("bad", text, "start the project once, then run `kumodr init` again"))
    return Located(base / posixpath.relpath(path, mount.target) if path != mount.target else base)
