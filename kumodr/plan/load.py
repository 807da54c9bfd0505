"""Find and load the plan.

A plan that was validated is kept as JSON in the user's cache, under the hash of its text: loading it again needs
neither YAML nor pydantic. A cache that others could write to is ignored.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from kumodr import __version__, errors
from kumodr.durable import write_file
from kumodr.plan.model import Plan
from kumodr.plan.shape import build

NAME = "kumodr.yaml"
_LARGEST = 1 << 20


def load_plan(path: str | None, *, environment: Mapping[str, str] = os.environ, directory: Path | None = None) -> Plan:
    """Given a path (None: the nearest kumodr.yaml, upward), return the plan. Raise PlanMissing or PlanInvalid."""
    file = Path(path).absolute() if path else nearest(directory or Path.cwd())
    try:
        with open(file, "rb") as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise errors.PlanMissing(f"the plan {file} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise errors.PlanInvalid(f"the plan {file} is larger than 1 MiB", ("line 1: this is no plan",))
    cache = _cache_file(file, data, environment)
    plan = _cached(cache)
    if plan is None:
        plan = parse_plan(data, file)
        _keep(cache, plan)
    return plan


def parse_plan(data: bytes, file: Path) -> Plan:
    """Given a plan's bytes and where it stands, return it. Raise PlanInvalid with every mistake."""
    from kumodr.plan.document import read_document
    from kumodr.plan.validate import validated

    values, mistakes = validated(read_document(data.decode("utf-8", "replace")), str(file.parent))
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise errors.PlanInvalid(f"the plan {file} has {count}", tuple(mistakes))
    return build(Plan, values)


def nearest(directory: Path) -> Path:
    """Given a directory, return the kumodr.yaml in it or in the nearest one above. Raise PlanMissing."""
    for folder in (directory, *directory.parents):
        try:
            if (folder / NAME).is_file():
                return folder / NAME
        except PermissionError as error:
            raise errors.PlanMissing(
                f"whether there is a {NAME} in {folder} cannot be seen: this user may not look into it"
            ) from error
    raise errors.PlanMissing(f"there is no {NAME} in {directory} or above")


def _cache_file(file: Path, data: bytes, environment: Mapping[str, str]) -> Path:
    folder = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "/nonexistent") / ".cache")
    digest = hashlib.sha256(b"\0".join([__version__.encode(), os.fsencode(file), data]))
    with open(__file__.replace("load.py", "model.py"), "rb") as model:
        digest.update(model.read())
    return folder / "kumodr" / f"plan-{digest.hexdigest()[:32]}.json"


def _cached(cache: Path) -> Plan | None:
    try:
        with open(cache, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            return build(Plan, json.loads(file.read(_LARGEST)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _keep(cache: Path, plan: Plan) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(cache, json.dumps(asdict(plan)).encode())
    except OSError:
        return
