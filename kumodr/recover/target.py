"""Where a restore may go: a new or empty directory, never a place that is in use."""

import os
from pathlib import Path

from kumodr import errors
from kumodr.plan.model import Plan

MARKER = "kumodr-restored.json"


def live_paths(plan: Plan) -> tuple[Path, ...]:
    """Given the plan, return every directory that a running service may be using."""
    parts = plan.components
    paths: list[str] = []
    if parts.spool:
        paths += [parts.spool.meta, parts.spool.data]
    if parts.logs:
        paths += parts.logs.directories
    if parts.config:
        paths += parts.config.paths
    if parts.prometheus and parts.prometheus.data:
        paths.append(parts.prometheus.data)
    if parts.redis and parts.redis.data:
        paths.append(parts.redis.data)
    return tuple(Path(path) for path in paths)


def why_not_target(target: Path, live: tuple[Path, ...]) -> errors.KumodrError | None:
    """Given the directory to restore to and the live ones, return the error that speaks against it, or None."""
    real = Path(os.path.realpath(target))
    for path in live:
        path = Path(os.path.realpath(path))
        if real == path or path in real.parents or (real in path.parents and path.exists()):
            return errors.TargetIsLive(f"{target} is, holds or lies in {path}, which the plan names as live")
    if target.is_symlink():
        return errors.TargetNotEmpty(f"{target} is a symbolic link")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        return errors.TargetNotEmpty(f"{target} is not empty")
    return None
