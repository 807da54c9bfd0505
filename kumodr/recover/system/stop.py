"""End what is left of the services, the mail server first."""

from collections.abc import Collection, Iterator

from kumodr import errors
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Outcome
from kumodr.runtimes.protocol import Stopped

_PATIENCE = 30.0


def running(scene: Scene, context: Context, names: Collection[str] | None = None) -> list[str]:
    """Return the services that run now, in the order in which they start; of those that are named, None: of all."""
    runtime = scene.runtime(context.say)
    if runtime is None:
        return []
    wanted = [each for each in scene.services(runtime) if names is None or each in names]
    return [each for each in wanted if runtime.state(each).running]


def is_stopped(scene: Scene, context: Context) -> Outcome | None:
    """Return that nothing runs, or None."""
    return None if running(scene, context) else Outcome("no service of the site runs")


def stop(scene: Scene, context: Context) -> Outcome:
    """End every service that runs: asked first, killed where it does not end."""
    ended = end(scene, context, None, _PATIENCE)
    return Outcome(
        "; ".join(f"{name} ended {how.how} after {how.seconds:.1f} s" for name, how in ended) or "nothing ran"
    )


def end(
    scene: Scene, context: Context, names: Collection[str] | None, patience: float
) -> Iterator[tuple[str, Stopped]]:
    """Given names, None for all, end each of them that runs, the mail server first; yield how. Killed after `patience`
    seconds.
    """
    runtime = scene.runtime(context.say)
    if runtime is None:
        return
    for service in reversed(scene.services(runtime)):
        if names is None or service in names:
            how = runtime.stop(service, patience=patience)
            if how.how != "not running":
                yield service, how


def proved(scene: Scene, context: Context, names: Collection[str] | None = None) -> Outcome:
    """Return that nothing runs, of those that are named, None: of all. Raise StepFailed."""
    left = running(scene, context, names)
    if left:
        raise errors.StepFailed(f"{', '.join(left)} still runs: something starts it again")
    return Outcome("no service of the site runs" if names is None else "what was to be stopped does not run")
