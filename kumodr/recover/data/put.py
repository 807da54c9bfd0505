"""What was recovered gets its place by renaming, what was there another name; then its services start again."""

from kumodr import errors
from kumodr.components.registry import component
from kumodr.recover.data.hold import affected, copy, nothing_damaged, stands_still
from kumodr.recover.system import place as of_system
from kumodr.recover.system import start as of_start
from kumodr.recover.system.scene import Scene
from kumodr.recover.system.stop import running
from kumodr.runbooks.step import Context, Outcome

_EVERY = 0.1


def is_sound(_scene: Scene, context: Context) -> Outcome | None:
    """Return that there is nothing to put in place, or None."""
    return nothing_damaged(context)


def put(scene: Scene, context: Context) -> Outcome:
    """Put each damaged component's recovered state in its place. Raise StepFailed, DiskFull."""
    stands_still(scene, context)
    damaged, restored = context.facts["damaged"], copy(scene, context.run)
    told: list[str] = []
    asides: list[str] = []
    if "spool" in damaged:
        asides += of_system.spool_in_place(scene, context.run)
        told += [f"what was there before is now {each}" for each in asides]
    if "redis" in damaged:
        from kumodr.recover.data import redis

        told += redis.put_back(restored / "redis", scene.plan, context.run)
    if "prometheus" in damaged:
        from kumodr.recover.data import prometheus

        parts = context.facts["parts"]["prometheus"]
        told += prometheus.put_back(restored / "prometheus", scene.plan, context.run, parts)
    return Outcome("\n".join(told), {"told": told} | of_system.placed(scene, context, asides))


def is_in_place(scene: Scene, context: Context) -> Outcome:
    """Return that it is there. Raise StepFailed."""
    if "spool" in context.facts["damaged"]:
        return of_system.is_in_place(scene, context)
    return Outcome("what was damaged is in its place" if context.facts["damaged"] else "nothing was to be put")


def is_started(scene: Scene, context: Context) -> Outcome | None:
    """Return that the services run whose data was damaged, or None."""
    names = affected(scene, context)
    if set(running(scene, context, names)) == set(names):
        return nothing_damaged(context) or Outcome("every service runs whose data was damaged")
    return None


def start(scene: Scene, context: Context) -> Outcome:
    """Start the services whose data was damaged, the mail server last. Others that do not run are left alone: to
    start a mail server is to send, and nothing was vetted for that.
    """
    runtime = scene.runtime(context.say)
    if runtime is None:
        raise errors.StepFailed("the site is not laid out")
    names = [each for each in scene.services(runtime) if each in affected(scene, context)]
    for name in names:
        context.say(f"starting {name}")
        if not runtime.state(name).running:
            runtime.start(name)
    return Outcome(f"started: {', '.join(names)}")


def recovered(scene: Scene, context: Context) -> Outcome:
    """Wait until the mail server has loaded the whole spool, and the others answer. Raise StepFailed."""
    damaged = context.facts["damaged"]
    done = of_start.recovered(scene, context) if "spool" in damaged else Outcome("")
    said = [done.text] if done.text else []
    for name in damaged:
        if name == "spool":
            continue
        while bad := [each.text for each in component(name, scene.plan, context.clock).health() if each.level == "bad"]:
            if context.left() < 1:
                raise errors.StepFailed(f"{name} does not come back: {bad[0]}")
            context.pause(_EVERY)
        said.append(f"{name} answers")
    return Outcome("; ".join(said), done.facts)
