"""Where the data of every component lies at a site, and how its services run: kept with the configuration, so that
`kumodr place` finds the way back with nothing but the vault.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.plan.load import NAME, parse_plan
from kumodr.plan.model import Plan, RuntimePlan
from kumodr.plan.shape import build
from kumodr.spool.openfile import open_read_only, read_whole

FILE = "places.json"
_LARGEST = 1 << 20
_VOLUME = re.compile(r"/.*/volumes/([A-Za-z0-9][A-Za-z0-9_.-]*)/_data(?:/(.*))?")


@dataclass(frozen=True)
class Place:
    """One folder of live data: the component; what of a restored directory belongs there (None: only the folder
    itself); its path on the host; and whose it is, with which mode. None: it could not be looked at.
    """

    component: str
    source: str | None
    path: str
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None

    @property
    def volume(self) -> tuple[str, str] | None:
        """The Docker volume that it lies in, and its path in there; None where it lies in none."""
        found = _VOLUME.fullmatch(self.path)
        return (found[1], found[2] or "") if found else None


@dataclass(frozen=True)
class Places:
    """Every folder of live data of a site, outer ones first, how its services run, and kumodr's own folder."""

    runtime: RuntimePlan
    folders: tuple[Place, ...]
    state: str


def places_text(plan: Plan) -> bytes:
    """Given the plan, look at its folders and return what is kept."""
    folders = [asdict(each) for each in _places(plan)]
    document = {"runtime": asdict(plan.runtime), "folders": folders, "state": plan.state}
    return json.dumps(document, indent=2).encode() + b"\n"


def read_places(config: Path) -> Places:
    """Given a restored `config`, return what is kept there. It is read as what a stranger may have written.

    Raise ComponentUnavailable where it is not there, ComponentDamaged.
    """
    try:
        descriptor = open_read_only(str(config / FILE))
    except OSError as error:
        raise errors.ComponentUnavailable(
            f"{config} does not say where the site has its data ({FILE} is missing)",
            remedy="restore the component config too, from a point that this version of kumodr stored",
        ) from error
    try:
        document: Any = json.loads(read_whole(descriptor, _LARGEST))
        runtime: RuntimePlan = build(RuntimePlan, document["runtime"])
        folders = tuple(Place(**each) for each in document["folders"])
        state = Place("state", None, document["state"])
        problem = next((text for each in (*folders, state) if (text := _why_not_place(each))), None)
        if problem is not None:
            raise ValueError(problem)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise errors.ComponentDamaged(f"{config / FILE} cannot be read: {error}") from error
    finally:
        os.close(descriptor)
    return Places(_with_docker(runtime, config), folders, state.path)


def _with_docker(runtime: RuntimePlan, config: Path) -> RuntimePlan:
    """Given the runtime as the plan had it that stored this, return that of the site.

    A sidecar has no Docker, so its plan names no runtime; the plan that it was made from does, and is stored too.
    """
    for file in sorted((config / "files").rglob(NAME)) if runtime.kind == "none" else ():
        try:
            descriptor = open_read_only(str(file))
            try:
                found = parse_plan(read_whole(descriptor, _LARGEST), Path("/") / file.relative_to(config / "files"))
            finally:
                os.close(descriptor)
        except (OSError, errors.PlanInvalid):
            continue
        if found.runtime.kind != "none":
            return found.runtime
    return runtime


def _why_not_place(place: Place) -> str | None:
    paths = [place.path.lstrip("/"), *([place.source] if place.source is not None else [])]
    if not place.path.startswith("/") or any("\0" in each or {"", ".", ".."} & {*each.split("/")} for each in paths):
        return f"{place.path[:200]!r} is no place"
    numbers = (place.uid, place.gid, place.mode)
    if not all(each is None or (type(each) is int and 0 <= each < 1 << 32) for each in numbers):
        return f"the owner of {place.path[:200]!r} is none"
    return None


def _places(plan: Plan) -> Iterator[Place]:
    parts = plan.components
    if parts.spool:
        meta, data = Path(parts.spool.meta), Path(parts.spool.data)
        for folder in dict.fromkeys((meta.parent, data.parent)):
            yield _seen("spool", None, folder)
        yield _seen("spool", "spool/data", data)
        yield _seen("spool", "spool/meta", meta)
    for number, directory in enumerate(parts.logs.directories if parts.logs else (), 1):
        yield _seen("logs", f"logs/{number}-{Path(directory).name}", Path(directory))
    for name, part in (("redis", parts.redis), ("prometheus", parts.prometheus)):
        if part is not None and part.data:
            yield _seen(name, name, Path(part.data))


def _seen(component: str, source: str | None, folder: Path) -> Place:
    try:
        status = folder.stat()
    except OSError:
        return Place(component, source, str(folder))
    return Place(component, source, str(folder), status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
