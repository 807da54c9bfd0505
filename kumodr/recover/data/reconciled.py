"""The joined spool is made safe to send, and compared with what removing it for a backup would have left."""

from datetime import datetime

from kumodr.clock import time_of_text
from kumodr.recover.data.hold import whole
from kumodr.recover.system import decide
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Outcome
from kumodr.spool.identifier import created
from kumodr.spool.reader import open_spool


def is_sound(_scene: Scene, context: Context) -> Outcome | None:
    """Return that the spool is sound, or None."""
    return whole(context, "spool")


def reconcile(scene: Scene, context: Context) -> Outcome:
    """Take out what the evidence says is finished, with the logs that survive here: `recover/system/decide.py`."""
    return decide.decide(scene, context)


def is_safe(scene: Scene, context: Context) -> Outcome:
    """Return how many messages a server must find, and how many of them the usual way would have lost."""
    sound = whole(context, "spool")
    if sound is not None:
        return sound
    safe = decide.is_safe(scene, context)
    base = context.facts["base"] if context.facts["filled"] else None
    lost = _younger(scene, context, time_of_text(base["taken"]) if base else None)
    facts = {"usual_way": {"base": base["id"] if base else None, "would_have_lost": lost}}
    return Outcome(safe.text, {**safe.facts, **facts}, safe.warnings)


def _younger(scene: Scene, context: Context, taken: datetime | None) -> int:
    """Count the messages of the result that a base of that time does not hold; all of them where there is none.

    A message that was acknowledged before a base, and is not finished, is in it (design, invariant 1), and the id of a
    message carries the time at which it was received. So those that are younger than the base are exactly those that
    it lacks. One that another node passed on has its time from there: the count is never too high.
    """
    spool = scene.work(context.run) / "spool"
    count = 0
    with open_spool(spool / "meta", spool / "data") as held:
        for identifier in held.ids():
            born = created(bytes.fromhex(identifier))
            count += taken is None or (born is not None and born > taken)
    return count
