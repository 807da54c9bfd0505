"""Start the services in order, and wait until the mail server has recovered, which is more than that it lives."""

import re
from pathlib import Path

from kumodr import errors
from kumodr.clock import text_of_time
from kumodr.mailserver.http import MailServer
from kumodr.mailserver.mailtest import follow, send
from kumodr.recover.system.place import enumerations
from kumodr.recover.system.scene import Scene
from kumodr.recover.system.stop import running
from kumodr.runbooks.step import Context, Outcome
from kumodr.runtimes.protocol import Runtime

_LINES = 5000
_SPOOLED = re.compile(r"enumeration done, spooled in (\d+) msgs")
_EVERY = 0.1


def is_started(scene: Scene, context: Context) -> Outcome | None:
    """Return that every service runs, or None."""
    runtime = _runtime(scene, context)
    left = set(scene.services(runtime)) - set(running(scene, context))
    return None if left else Outcome("every service runs")


def start(scene: Scene, context: Context) -> Outcome:
    """Start what does not run, the mail server last."""
    runtime = _runtime(scene, context)
    names = scene.services(runtime)
    for name in (*scene.world(runtime), *names):
        if not runtime.state(name).running:
            context.say(f"starting {name}")
            runtime.start(name)
    return Outcome(f"started: {', '.join(names)}")


def recovered(scene: Scene, context: Context) -> Outcome:
    """Wait until the mail server is alive and has loaded as many messages as the vetted spool holds.

    Raise StepFailed where it ends, or loads another number.
    """
    runtime, expected, marks = _runtime(scene, context), context.facts["expected"], context.facts["marks"]
    server = MailServer(scene.plan.kumod.http) if scene.plan.kumod.http else None
    while True:
        state = runtime.state(scene.kumod)
        text = runtime.logs(scene.kumod, lines=_LINES)
        if not state.running:
            last = text.strip().splitlines()[-1:] or ["it says nothing"]
            raise errors.StepFailed(f"{scene.kumod} does not run: {last[0][:300]}")
        alive = server is None or _is_alive(server)
        counts = _SPOOLED.findall(text)
        if alive and enumerations(text) > marks and counts:
            loaded = int(counts[-1])
            if loaded != expected:
                raise errors.StepFailed(f"{scene.kumod} loaded {loaded} messages, and the spool held {expected}")
            return Outcome(f"alive; {loaded} messages loaded, as many as the spool held", {"loaded": loaded})
        if context.left() < 1:
            missing = "is not alive" if not alive else "has not loaded its spool"
            raise errors.StepFailed(f"{scene.kumod} {missing} after {context.left():g} s")
        context.pause(_EVERY)


def canary(scene: Scene, context: Context) -> Outcome:
    """Hand one message in and follow it to its end. Raise StepFailed where it is not delivered.

    Repeatable: it is one more message to the address that the plan has for this.
    """
    plan = scene.plan
    if plan.kumod.smtp is None or plan.runbooks.canary is None:
        missing = "kumod.smtp" if plan.kumod.smtp is None else "runbooks.canary"
        return Outcome(
            f"not done: the plan has no {missing}", {"accepted": None, "delivered": None},
            (f"that mail is taken and delivered was not tried: the plan has no {missing}",),
        )  # fmt: skip
    address = plan.runbooks.canary
    sent = send(plan.kumod.smtp, address, address, context.clock)
    server = MailServer(plan.kumod.http) if plan.kumod.http else None
    limit = max(1.0, context.left() - 5)
    ended = follow(sent, scene.logs, server, context.clock, lambda: context.pause(_EVERY), limit)
    facts = {"accepted": text_of_time(sent.accepted), "delivered": text_of_time(ended.ended) if ended.ended else None}
    if ended.how in ("delivered", "transferred"):
        return Outcome(f"{sent.id} accepted in {sent.seconds:.2f} s and {ended.how}: {ended.response}", facts)
    if ended.how == "left the spool":
        warning = "the canary message left the spool, and no log says how yet"
        return Outcome(f"{sent.id} accepted in {sent.seconds:.2f} s; {warning}", facts, (warning,))
    raise errors.StepFailed(f"{sent.id} was accepted, and is {ended.how}: {ended.response or 'no try is in the log'}")


def _runtime(scene: Scene, context: Context) -> Runtime:
    runtime = scene.runtime(context.say)
    if runtime is None:
        raise errors.StepFailed(f"the site at {Path(scene.plan.runtime.directory or '.')} is not laid out")
    return runtime


def _is_alive(server: MailServer) -> bool:
    try:
        return server.why_not_alive() is None
    except errors.MailServerSilent:
        return False
