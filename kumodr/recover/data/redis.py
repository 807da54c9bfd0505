"""Redis: whether what it would load at its next start can be loaded, and putting back what can."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.redis import APPEND_ONLY, DUMP
from kumodr.components.redis_trial import try_append_only, try_dump
from kumodr.components.registry import component
from kumodr.plan.model import Plan
from kumodr.recover.data.examined import DAMAGED, SOUND, UNKNOWN, Examined
from kumodr.recover.system.place import give, moved, owner_of
from kumodr.runtimes.commands import Runner

_CHECK = 600.0
_WORDS = 300
_TELLING = re.compile("error|wrong|invalid|unexpected|not valid|expected", re.IGNORECASE)


def examine(plan: Plan, clock: Clock, runner: Runner) -> Examined:
    """Given the plan, look at Redis and its files, on copies.

    A server that answers has its data in memory, which is newer than any file: its files are then told of, and do not
    decide. Where it does not answer, a scratch server must load what is on disk. Raise ToolMissing, DiskFull.
    """
    found = component("redis", plan, clock).health()
    told = tuple(each.text for each in found if each.level != "good")
    answers = any(each.level == "good" for each in found)
    folder = folder_of(plan)
    if folder is None or not folder.is_dir():
        if answers:
            return Examined("redis", SOUND, told=told)
        reason = "its folder is not known here: set components.redis.data in kumodr.yaml" if folder is None else ""
        return Examined("redis", DAMAGED if folder else UNKNOWN, (reason or f"{folder} is not there",), told)
    wrong = tuple(_wrong(folder, runner))
    if answers:
        return Examined("redis", SOUND, told=(*told, *(f"{each}; it will be written anew" for each in wrong)))
    return Examined("redis", DAMAGED if wrong else SOUND, wrong, told)


def folder_of(plan: Plan) -> Path | None:
    """Return where this host has Redis' files, None where the plan does not say."""
    named = plan.components.redis.data if plan.components.redis else None
    return Path(named) if named else None


def _wrong(folder: Path, runner: Runner) -> Iterator[str]:
    """Yield what is the matter with the files that a server loads: the append-only ones where there are any."""
    with tempfile.TemporaryDirectory(prefix="kumodr-redis-") as scratch:
        dump, parts = _dump_in(folder), folder / APPEND_ONLY
        manifests = sorted(parts.glob("*.manifest"))
        try:
            if manifests:
                copied = Path(scratch) / APPEND_ONLY
                shutil.copytree(parts, copied)
                if try_append_only(copied, manifests[0].name.removesuffix(".manifest")).keys is None:
                    words = ["redis-check-aof", str(copied / manifests[0].name)]
                    yield f"{parts}: a Redis server does not load it: {_said(runner, words)}"
            elif dump is not None:
                copied = Path(scratch) / DUMP
                shutil.copyfile(dump, copied)
                if try_dump(copied).keys is None:
                    yield f"{dump}: a Redis server does not load it: {_said(runner, ['redis-check-rdb', str(copied)])}"
            else:
                yield f"{folder}: neither a dump nor append-only files are in it"
        except OSError as error:
            yield f"{error.filename or folder} cannot be read: {error.strerror}"


def _said(runner: Runner, words: list[str]) -> str:
    try:
        answer = runner(words, limit=_CHECK)
    except errors.KumodrError:
        return f"{words[0]} is not here to say more"
    lines = [" ".join(line.split()) for line in answer.out.decode(errors="replace").splitlines()]
    last = [line for line in lines if _TELLING.search(line)] or lines[-1:]
    return " / ".join(last[-2:])[:_WORDS]


def _dump_in(folder: Path) -> Path | None:
    dumps = sorted(folder.glob("*.rdb"), key=lambda path: path.stat().st_mtime)
    return dumps[-1] if dumps else None


def put_back(restored: Path, plan: Plan, run: str) -> Iterator[str]:
    """Given the vault's copy, put each of its files where the server looks for it; yield what was done.

    What was there gets another name beside. Repeatable: what is gone from the copy has been put. Raise StepFailed.
    """
    folder = folder_of(plan)
    if folder is None:
        raise errors.StepFailed(f"where Redis keeps its files is not known; {restored} holds them: set redis.data")
    known = _dump_in(folder) if folder.is_dir() else None
    names = [each.name for each in sorted(restored.iterdir())] if restored.is_dir() else []
    if APPEND_ONLY not in names and (folder / APPEND_ONLY).exists() and DUMP in names:
        raise errors.StepFailed(
            f"Redis would load {folder / APPEND_ONLY}, and the vault's copy, from before that was on, has only a dump; "
            f"start it with `appendonly no`, with {restored / DUMP} as its dump"
        )
    for name in names:
        target = folder / (known.name if name == DUMP and known is not None else name)
        aside = target.with_name(f"{target.name}.before-{run}")
        owner = owner_of(aside) or owner_of(target) or owner_of(folder)
        moved(restored / name, target, aside)
        if owner is not None:
            give(target, *owner)
        yield f"{target} is the vault's; what was there is {aside}" if aside.exists() else f"{target} is the vault's"
