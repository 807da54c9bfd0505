"""A lab site of whatever runtime: of processes on this host, or in containers."""

import json
from collections.abc import Callable
from pathlib import Path

from kumodr import errors
from kumodr.lab.compose.site import ComposeSite, open_compose
from kumodr.lab.site import Site, adopt, open_site, stop_world

AnySite = Site | ComposeSite


def is_there(directory: Path) -> bool:
    """Say whether there is a lab site in a directory, running or not."""
    return any((directory / "site" / name).exists() for name in ("site.json", "docker-compose.yml"))


def open_any(directory: Path) -> AnySite:
    """Given a directory with a site, return it. Raise LabMissing."""
    return open_compose(directory) if (directory / "site" / "docker-compose.yml").exists() else open_site(directory)


def adopt_any(directory: Path, restored: Path, *, say: Callable[[str], None]) -> AnySite:
    """Given a lab directory without a site and what `kumodr restore` brought back, make a site of the same runtime.

    Raise LabMissing, TargetNotEmpty, LabFailed, Docker's errors.
    """
    from kumodr.lab.compose.layout import adopt_compose, restored_project

    if restored_project(restored) is not None:
        return adopt_compose(directory, restored, say=say)
    return adopt(directory, restored)


def stop_any_world(directory: Path) -> None:
    """Given a lab directory whose site was wiped, stop the sink, which stayed. Raise LabMissing where there is none."""
    from kumodr.runtimes.compose import ComposeRuntime, Project

    try:
        project = json.loads((directory / "world" / "world.json").read_text()).get("project")
    except (OSError, ValueError) as error:
        raise errors.LabMissing(f"there is no lab site at {directory}") from error
    if project is None:
        stop_world(directory)
    else:
        ComposeRuntime(Project(directory, name=str(project)), say=lambda _text: None).remove(volumes=False)
