"""What is damaged is held still, its evidence is kept safe, and the state is chosen that fills what is gone."""

import shutil
from dataclasses import replace
from pathlib import Path

from kumodr import errors
from kumodr.cli.terminal import age_text, size_text
from kumodr.clock import text_of_time
from kumodr.components.registry import component, configured
from kumodr.protect.base import take_base
from kumodr.recover.choose import State
from kumodr.recover.system.assess import existing
from kumodr.recover.system.bring import last_write, restored, state_at, until_of
from kumodr.recover.system.scene import Scene
from kumodr.recover.system.stop import end, proved, running
from kumodr.recover.target import MARKER
from kumodr.runbooks.step import Context, Outcome
from kumodr.vault.backup import begin_backup
from kumodr.vault.keys import NodeKey
from kumodr.vault.points import Survey

_PATIENCE = 300.0
"""As KumoMTA's unit has it. A server that is killed leaves deliveries out of its log, so it gets its time."""

_EVIDENCE = ("logs", "ledger")
_SPARE = 1.05
_WITHOUT = {
    "spool": "it is made of what can be read alone",
    "redis": "it is left as it is",
    "prometheus": "its damaged blocks are only taken out",
}


def whole(context: Context, name: str) -> Outcome | None:
    """Return that a component is sound and left alone, or None."""
    return None if name in context.facts["damaged"] else Outcome(f"{name} is left alone")


def nothing_damaged(context: Context) -> Outcome | None:
    """Return that there is nothing to do, or None."""
    return None if context.facts["damaged"] else Outcome("every component is sound: nothing is changed")


def affected(scene: Scene, context: Context) -> list[str]:
    """Return the services whose data is damaged: only these are stopped."""
    runtime = scene.plan.runtime
    named = {"spool": runtime.kumod, "redis": runtime.redis, "prometheus": runtime.prometheus}
    return [service for name in context.facts["damaged"] if (service := named[name])]


def is_stopped(scene: Scene, context: Context) -> Outcome | None:
    """Return that no service runs whose data is damaged, or None."""
    if running(scene, context, affected(scene, context)):
        return None
    return nothing_damaged(context) or Outcome("no service runs whose data is damaged")


def stop(scene: Scene, context: Context) -> Outcome:
    """End the services whose data is damaged, and say where one had to be killed."""
    said: list[str] = []
    warnings: list[str] = []
    for name, how in end(scene, context, affected(scene, context), _PATIENCE):
        said.append(f"{name} ended {how.how} after {how.seconds:.1f} s")
        if how.how == "killed" and name == scene.plan.runtime.kumod:
            warnings.append(f"{name} had to be killed: its last deliveries may be missing from the log")
    return Outcome("; ".join(said) or "nothing ran", {}, tuple(warnings))


def stands_still(scene: Scene, context: Context) -> Outcome:
    """Return that what was to be stopped does not run. Raise StepFailed."""
    return proved(scene, context, affected(scene, context))


def capture(scene: Scene, context: Context) -> Outcome:
    """Store the logs that are here: they say what was delivered until the end.

    The damaged spool itself is no recovery point: as the newest it would be taken for the state to bring back. It is
    read where it is, and kept.
    """
    plan, state = scene.plan, Path(scene.plan.state)
    facts = {"last_write": last_write(scene)}
    if "logs" not in configured(plan):
        return Outcome("the plan names no logs", facts)
    key = NodeKey.load_or_create(state, plan.site)
    with begin_backup(scene.vault(), key, state, context.clock, context.progress) as session:
        base = take_base(session, [component("logs", plan, context.clock)])
    return Outcome(f"the logs are stored as {base.point.id}", facts)


def choose(scene: Scene, context: Context) -> Outcome:
    """Say which state fills what is gone, and what the vault lacks. Raise StepFailed where the disk is too small."""
    nothing = nothing_damaged(context)
    if nothing is not None:
        return nothing
    at = scene.wanted.at or text_of_time(context.clock())
    found, state = _state(scene, context, at)
    missing = set(context.facts["damaged"]) - {each.section.component for each in state.chosen}
    # Without a copy there is nothing to put for Redis; of the others what is sound can still be kept apart.
    damaged = [each for each in context.facts["damaged"] if each != "redis" or each not in missing]
    size = sum(each.section.size for each in state.chosen)
    # The salvaged spool stands beside the copy that it is filled from.
    needed = (size + sum(each.section.size for each in state.chosen if each.section.component == "spool")) * _SPARE
    free = shutil.disk_usage(existing(scene.meta.parent)).free
    if needed > free:
        raise errors.StepFailed(
            f"{size_text(int(needed))} are needed beside {scene.meta}, and {size_text(free)} are free"
        )
    until = until_of(state)
    base = next((each.point for each in state.chosen if each.section.component == "spool"), None)
    parts = ", ".join(f"{each.section.component} of {each.point.id}" for each in state.chosen)
    old = "" if until is None else f"; its spool is {age_text((context.clock() - until).total_seconds())} old"
    facts = {
        "at": at,
        "until": text_of_time(until) if until else None,
        "base": {"id": base.id, "taken": text_of_time(base.taken)} if base else None,
        "bytes": size,
        "damaged": damaged,
    }
    warnings = [f"no recovery point holds {each}: {_WITHOUT[each]}" for each in sorted(missing)]
    warnings += [f"in the vault: {each}" for each in (*found.problems, *state.problems)]
    return Outcome(f"what is gone is filled from {parts or 'nothing'}, {size_text(size)}{old}", facts, tuple(warnings))


def _state(scene: Scene, context: Context, at: str) -> tuple[Survey, State]:
    found, state = state_at(scene, at)
    damaged = context.facts["damaged"]
    names = (*damaged, *(_EVIDENCE if "spool" in damaged else ()))
    return found, replace(state, chosen=tuple(each for each in state.chosen if each.section.component in names))


def copy(scene: Scene, run: str) -> Path:
    """Return where the vault's copy of a run is restored to."""
    return scene.work(run) / "vault"


def is_restored(scene: Scene, context: Context) -> Outcome | None:
    """Return that the copy is whole, by the marker that is written last, or that none is needed; or None."""
    if (copy(scene, context.run) / MARKER).is_file():
        return Outcome(f"restored and vetted in {copy(scene, context.run)}")
    return nothing_damaged(context)


def bring_back(scene: Scene, context: Context) -> Outcome:
    """Restore what is needed of the chosen state beside the spool, vetted."""
    _, state = _state(scene, context, context.facts["at"])
    target = copy(scene, context.run)
    target.parent.mkdir(exist_ok=True, mode=0o700)
    return restored(scene, context, state, target)
