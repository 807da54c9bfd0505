"""End what is left of the services, the mail server first."""

from kumodr import errors
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Outcome

_PATIENCE = 30.0


def running(scene: Scene, context: Context) -> list[str]:
    """Return the services that run now, in the order in which they start."""
    runtime = scene.runtime(context.say)
    return [] if runtime is None else [each for each in scene.services(runtime) if runtime.state(each).running]


def is_stopped(scene: Scene, context: Context) -> Outcome | None:
    """Return that nothing runs, or None."""
    return None if running(scene, context) else Outcome("no service of the site runs")


def stop(scene: Scene, context: Context) -> Outcome:
    """End every service that runs: asked first, killed where it does not end."""
    runtime = scene.runtime(context.say)
    ended: list[str] = []
    if runtime is not None:
        for service in reversed(scene.services(runtime)):
            how = runtime.stop(service, patience=_PATIENCE)
            if how.how != "not running":
                ended.append(f"{service} ended {how.how} after {how.seconds:.1f} s")
    return Outcome("; ".join(ended) or "nothing ran")


def proved(scene: Scene, context: Context) -> Outcome:
    """Return that nothing runs. Raise StepFailed."""
    left = running(scene, context)
    if left:
        raise errors.StepFailed(f"{', '.join(left)} still runs: something starts it again")
    return Outcome("no service of the site runs")
