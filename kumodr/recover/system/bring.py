"""Bring the newest state back beside the place where it belongs: what survives is captured before it is replaced."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from kumodr import errors
from kumodr.cli.terminal import age_text, size_text
from kumodr.clock import text_of_time, time_of_text
from kumodr.components.registry import component, configured, vetter
from kumodr.protect.base import in_order, take_base
from kumodr.recover.choose import State, choose_state
from kumodr.recover.restore import restore
from kumodr.recover.system.scene import Scene
from kumodr.recover.target import MARKER
from kumodr.runbooks.step import Context, Outcome
from kumodr.vault.backup import begin_backup
from kumodr.vault.keys import NodeKey
from kumodr.vault.points import Survey, survey

_SPARE = 1.05
_CAPTURED = ("spool", "logs")


def nothing_survives(scene: Scene, context: Context) -> Outcome | None:
    """Return that there is no spool to capture, or None."""
    return None if context.facts["survives"] else Outcome("no spool survives here", {"captured": None})


def capture(scene: Scene, context: Context) -> Outcome:
    """Store the spool and logs that survive here as a recovery point: they are newer than any copy.

    Where the spool is too damaged to be captured, say so and go on: it stays, and is moved aside later. Doing it twice
    stores one more point of the same content. Its last write is the last that its server did: nothing was sent since.
    """
    plan, state = scene.plan, Path(scene.plan.state)
    last = {"last_write": last_write(scene)}
    key = NodeKey.load_or_create(state, plan.site)
    names = in_order(name for name in configured(plan) if name in _CAPTURED)
    try:
        with begin_backup(scene.vault(), key, state, context.clock, context.progress) as session:
            base = take_base(session, [component(name, plan, context.clock) for name in names])
    except (errors.SpoolDamaged, errors.SpoolUnreadable, errors.SpoolMissing) as error:
        return _not_captured(error, last)
    if "spool" in base.failures:
        return _not_captured(base.failures["spool"], last)
    return Outcome(f"stored as {base.point.id}", {"captured": base.point.id} | last)


def _not_captured(error: errors.KumodrError, last: dict[str, str]) -> Outcome:
    warning = f"the spool that survives here cannot be captured: {error.what}; it will be moved aside and kept"
    salvage = f"{warning}; `kumodr spool salvage` brings out what can be read"
    return Outcome(warning, {"captured": None} | last, (salvage,))


def last_write(scene: Scene) -> str:
    """Return when the spool that survives was last written to."""
    newest = 0.0
    for half in (scene.meta, scene.data):
        for place, _folders, files in os.walk(half):
            newest = max(newest, *(os.lstat(os.path.join(place, name)).st_mtime for name in (".", *files)))
    return text_of_time(datetime.fromtimestamp(newest, UTC))


def choose(scene: Scene, context: Context) -> Outcome:
    """Say which state is brought back, and what that costs. Raise StepFailed where the captured point is not trusted,
    or the disk is too small.
    """
    now = context.clock()
    found, state = state_at(scene, scene.wanted.at or text_of_time(now))
    captured = context.facts.get("captured")
    if captured is not None and captured not in {point.id for point in found.points}:
        reason = next((each.remedy for each in found.problems if captured.split("-")[0] in each.what), "see `points`")
        raise errors.StepFailed(f"the spool captured as {captured} does not count: {reason}")
    until = until_of(state)
    if until is None:
        raise errors.StepFailed("no recovery point holds a spool")
    size = sum(each.section.size for each in state.chosen)
    free = shutil.disk_usage(next(each for each in scene.meta.parents if each.exists())).free
    if size * _SPARE > free:
        raise errors.StepFailed(
            f"{size_text(size)} are to be restored, and {size_text(free)} are free beside {scene.meta}"
        )
    parts = ", ".join(f"{each.section.component} of {each.point.id}" for each in state.chosen)
    age = (now - until).total_seconds()
    text = (
        f"the state of {until:%Y-%m-%d %H:%M:%S} UTC, {age_text(age)} old: {parts}, {size_text(size)}; mail that was "
        f"taken after it is not in it"
    )
    facts = {"at": scene.wanted.at or text_of_time(now), "until": text_of_time(until), "bytes": size}
    return Outcome(text, facts, tuple(f"in the vault: {each}" for each in (*found.problems, *state.problems)))


def state_at(scene: Scene, at: str) -> tuple[Survey, State]:
    """Given a time as text, return what the vault holds, and the newest state that is not after it."""
    vault, identities = scene.vault(), scene.identities()
    found = survey(vault, identities.pins)
    return found, choose_state(vault, found.points, identities.pins, at=time_of_text(at))


def until_of(state: State) -> datetime | None:
    """Given a state, return up to when its spool is complete, None where it has none."""
    base = next((each.point.taken for each in state.chosen if each.section.component == "spool"), None)
    return state.stream.extent.taken if state.stream is not None and base is not None else base


def is_restored(scene: Scene, context: Context) -> Outcome | None:
    """Return that this run's restore is whole, by the marker that is written last, or None."""
    marker = scene.work(context.run) / MARKER
    if not marker.is_file():
        return None
    messages = json.loads(marker.read_bytes())["components"]["spool"]["facts"].get("messages")
    return Outcome(f"restored and vetted in {marker.parent}: {messages} messages", {"restored": messages})


def bring_back(scene: Scene, context: Context) -> Outcome:
    """Restore the chosen state into this run's own directory, vetted."""
    _, state = state_at(scene, context.facts["at"])
    return restored(scene, context, state, scene.work(context.run))


def restored(scene: Scene, context: Context, state: State, work: Path) -> Outcome:
    """Restore a state into a directory, vetted. What an earlier try left there, unmarked, goes: it is nothing but a
    part of what is in the vault.
    """
    shutil.rmtree(work, ignore_errors=True)
    names = [each.section.component for each in state.chosen]
    recovered = restore(
        scene.vault(), state, scene.identities(), work, {name: vetter(name, context.clock) for name in names},
        clock=context.clock, progress=context.progress,
    )  # fmt: skip
    messages = next(
        (
            each.verdict.facts.get("messages")
            for each in recovered.components
            if each.chosen.section.component == "spool"
        ),
        None,
    )
    notes = [f"{each.chosen.section.component}: {text}" for each in recovered.components for text in each.imperfections]
    problems = [f"in the vault: {each}" for each in recovered.problems]
    return Outcome(
        f"{', '.join(names)} restored and vetted in {work}: {messages} messages", {"restored": messages},
        (*notes, *problems),
    )  # fmt: skip
