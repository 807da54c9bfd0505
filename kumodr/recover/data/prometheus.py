"""Prometheus: which of its blocks are damaged, and putting back those that the vault has. The others are left alone."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.prometheus_blocks import blocks_in
from kumodr.components.registry import component
from kumodr.plan.model import Plan
from kumodr.recover.data.blocks import why_not_sound
from kumodr.recover.data.examined import DAMAGED, SOUND, UNKNOWN, Examined
from kumodr.recover.system.place import give, moved, owner_of
from kumodr.runtimes.commands import Runner

_LIST = 600.0
_HEAD = 8


def examine(plan: Plan, clock: Clock, runner: Runner) -> Examined:
    """Given the plan, check every block by its checksums, and by promtool on a copy of what it opens.

    Blocks never change, so a running server does not matter. Its log of the newest hours it repairs itself at start.
    """
    told = tuple(each.text for each in component("prometheus", plan, clock).health() if each.level != "good")
    folder = folder_of(plan)
    if folder is None:
        where = "its folder is not known here: set components.prometheus.data in kumodr.yaml"
        return Examined("prometheus", UNKNOWN, (where,), told)
    try:
        names = blocks_in(folder)
    except OSError as error:
        return Examined("prometheus", UNKNOWN, (f"{folder} cannot be read: {error.strerror}",), told)
    wrong = {name: why for name in names if (why := why_not_sound(folder / name)) is not None}
    good = [name for name in names if name not in wrong]
    wrong |= dict.fromkeys(_unlisted(folder, good, runner), "promtool does not open it")
    evidence = tuple(f"block {name}: {why}" for name, why in wrong.items())
    return Examined("prometheus", DAMAGED if wrong else SOUND, evidence, told, parts=tuple(wrong))


def folder_of(plan: Plan) -> Path | None:
    """Return where this host has Prometheus' data, None where the plan does not say."""
    named = plan.components.prometheus.data if plan.components.prometheus else None
    return Path(named) if named else None


def _unlisted(folder: Path, names: list[str], runner: Runner) -> list[str]:
    """Return the blocks that `promtool tsdb list` does not open. It writes beside what it reads, so it gets a copy: all
    but the samples, of which it reads the head.
    """
    if not names:
        return []
    with tempfile.TemporaryDirectory(prefix="kumodr-prometheus-") as scratch:
        try:
            for name in names:
                copied = Path(scratch, name)
                (copied / "chunks").mkdir(parents=True)
                for file in ("meta.json", "index", "tombstones"):
                    if (folder / name / file).exists():
                        shutil.copyfile(folder / name / file, copied / file)
                for segment in (folder / name / "chunks").iterdir():
                    with open(segment, "rb") as file:
                        (copied / "chunks" / segment.name).write_bytes(file.read(_HEAD))
            listed = runner(["promtool", "tsdb", "list", scratch], limit=_LIST)
        except errors.ToolMissing:
            return []
        except OSError as error:
            raise errors.DiskFull(f"Prometheus' blocks cannot be copied for promtool: {error.strerror}") from error
    known = {line.split()[0] for line in listed.out.decode(errors="replace").splitlines() if line.split()}
    return [name for name in names if name not in known]


def put_back(restored: Path, plan: Plan, run: str, parts: list[str]) -> Iterator[str]:
    """Given the vault's copy and the names of damaged blocks, put those that it has in their place; yield what was.

    A damaged block gets another name, under which a server takes it for none; without it the server starts again.
    Repeatable: what is gone from the copy has been put, and what has its other name is not looked for.
    """
    folder = folder_of(plan)
    if folder is None:
        raise errors.StepFailed("where Prometheus keeps its data is not known; set components.prometheus.data")
    for name in parts:
        target = folder / name
        aside = target.with_name(f"{name}.before-{run}")
        owner = owner_of(aside) or owner_of(target) or owner_of(folder)
        if (restored / name).is_dir():
            moved(restored / name, target, aside)
        elif not aside.exists() and target.exists():
            target.rename(aside)
        if not target.exists():
            yield f"block {name} is not in the vault; it is {aside} now"
            continue
        if owner is not None:
            give(target, *owner)
        yield f"block {name} is the vault's; what was there is {aside}"
