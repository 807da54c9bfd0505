"""What is the matter, component by component, found without touching anything; nothing else is recovered."""

from kumodr import errors
from kumodr.components.registry import configured
from kumodr.recover.data.examined import DAMAGED, SOUND, UNKNOWN, Examined
from kumodr.recover.system.assess import must_open
from kumodr.recover.system.scene import Scene, survives
from kumodr.runbooks.step import Context, Outcome
from kumodr.vault.points import survey

COMPONENTS = ("spool", "redis", "prometheus")
_TOLD = 40


def diagnose(scene: Scene, context: Context) -> Outcome:
    """Given the scene, examine every component, and see that the vault answers and the identity opens it.

    What `scene.wanted.damaged` names is recovered whatever is found: that a log lost its end leaves no trace in it.
    Raise StepFailed where nothing could be recovered.
    """
    strange = set(scene.wanted.damaged) - set(configured(scene.plan))
    if strange:
        raise errors.StepFailed(f"the plan names no {', '.join(sorted(strange))}")
    vault, identities = scene.vault(), scene.identities()
    points = survey(vault, identities.pins)
    if not points.points:
        raise errors.StepFailed("the vault holds no recovery point; `kumodr spool salvage` works without one")
    must_open(vault, identities, points.points[-1])
    found = examined(scene, context)
    damaged = [each.component for each in found if each.verdict == DAMAGED or each.component in scene.wanted.damaged]
    warnings = [f"{each.component}: {text}" for each in found if each.verdict == UNKNOWN for text in each.evidence]
    lines: list[str] = []
    for each in found:
        named = ", taken for damaged as was asked" if each.component in damaged and each.verdict != DAMAGED else ""
        readable = "" if each.readable is None else f", {each.readable:,} messages can be read whole"
        lines.append(f"{each.component}: {each.verdict}{named}{readable}")
        lines += [f"  {text}" for text in each.evidence[:_TOLD]]
        lines += [f"  (told, does not decide) {text}" for text in each.told[:_TOLD]]
    facts = {
        "damaged": damaged,
        "components": [_bounded(each).document() for each in found],
        "parts": {each.component: list(each.parts) for each in found if each.component in damaged},
    }
    return Outcome("\n".join(lines), facts, tuple(warnings))


def _bounded(each: Examined) -> Examined:
    return Examined(
        each.component, each.verdict, each.evidence[:_TOLD], each.told[:_TOLD], each.parts, each.readable
    )  # fmt: skip


def examined(scene: Scene, context: Context) -> list[Examined]:
    """Return the verdict on every component that the plan names, and that can be damaged."""
    found: list[Examined] = []
    for name in COMPONENTS:
        if name not in configured(scene.plan):
            continue
        context.say(f"examining {name}")
        if name == "spool":
            found.append(_spool(scene, context))
        elif name == "redis":
            from kumodr.recover.data import redis

            found.append(redis.examine(scene.plan, context.clock, context.runner))
        else:
            from kumodr.recover.data import prometheus

            found.append(prometheus.examine(scene.plan, context.clock, context.runner))
    return found


def _spool(scene: Scene, context: Context) -> Examined:
    """Raise StepFailed where nothing of the spool is left: that is not damage to salvage from."""
    from kumodr.mailserver.health import health_of
    from kumodr.spool.diagnose import diagnose as of_spool

    if not survives(scene.meta) and not survives(scene.data):
        raise errors.StepFailed("nothing is left of the spool; `kumodr recover system` brings it back")
    said = tuple(
        f"{place}: {each.text}"
        for place, each in health_of(scene.plan, context.say)
        if place in ("kumod", "spool", "queues") and each.level != "warning"
    )
    found = of_spool(scene.meta, scene.data, scene.spool.kind, context.clock, context.progress)
    evidence = tuple(f"{each.witness}: {each.text}" for each in found.evidence)
    told = tuple(f"{each.witness}: {each.text}" for each in found.told)
    verdict = DAMAGED if found.verdict == "damaged" else SOUND
    return Examined("spool", verdict, evidence, (*told, *said), readable=found.readable)
