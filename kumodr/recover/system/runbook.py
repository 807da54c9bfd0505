"""The runbook of a complete system failure."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from kumodr.cli.terminal import age_text
from kumodr.clock import time_of_text
from kumodr.plan.model import Objectives
from kumodr.recover.system import assess, bring, decide, place, prove, start, stop
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Runbook, Step, Words

NAME = "recover-system"
TITLE = "Bring a mail site back after a complete system failure"


def recover_system(parameters: Mapping[str, Any]) -> Runbook:
    """Given the values of `Wanted`, return the runbook. Nothing is opened yet, but the plan for its objectives."""
    scene = Scene(parameters)
    return steps_on(scene, scene.plan.objectives)


def steps_on(scene: Scene, objectives: Objectives) -> Runbook:
    """Given a scene and the objectives that budgets come from, return the runbook."""
    steps = (
        Step(
            "assess", "know what is left and what is missing before anything is touched",
            partial(assess.assess, scene), reads=True, budget=30, limit=300,
            words=Words(
                "look at services, ports, disk, memory, clock, vault and key, and at what survives; "
                "say everything that is missing in one list",
                by_hand=("kumodr check", "kumodr points", "df -h", "free -h"),
            ),
        ),
        Step(
            "stop", "nothing may write to what is going to be replaced",
            partial(stop.stop, scene), check=partial(stop.is_stopped, scene), proof=partial(stop.proved, scene),
            asks=partial(_stop_question, scene), budget=60, limit=600,
            words=Words(
                "end every service that still runs, the mail server first; kill what does not end within 30 s",
                "no service of the site runs", "no service of the site runs",
                ("docker-compose stop", "systemctl stop kumod"),
            ),
        ),
        Step(
            "capture", "a spool that survives is newer than any copy",
            partial(bring.capture, scene), check=partial(bring.nothing_survives, scene),
            budget=objectives.queue, limit=objectives.data, on_failure="ask",
            words=Words(
                "store the surviving spool and logs as a recovery point; one that is damaged stays, and is moved aside",
                "no spool survives on this host", by_hand=("kumodr backup spool logs",),
            ),
        ),
        Step(
            "choose", "know which state comes back, and what that costs",
            partial(bring.choose, scene), reads=True, budget=30, limit=600,
            words=Words(
                "take the newest state in the vault, or the one of --at; see that the disk is large enough",
                by_hand=("kumodr points",),
            ),
        ),
        Step(
            "restore", "bring the state back beside its place, and prove it",
            partial(bring.bring_back, scene), check=partial(bring.is_restored, scene),
            budget=objectives.critical_services / 2, limit=objectives.data,
            preview=partial(_restore_preview, scene),
            words=Words(
                "restore every component into a directory of this run beside the spool; open and read all of it",
                "this run's directory holds the marker of a whole restore", "the restore itself counts and compares",
                ("kumodr restore --to DIR --identity FILE",),
            ),
        ),
        Step(
            "reconcile", "nothing is sent that was delivered, and what is lost is known by name",
            partial(decide.decide, scene), proof=partial(decide.is_safe, scene),
            budget=objectives.critical_services / 4, limit=objectives.data,
            words=Words(
                "compare the restored spool with the stream and every log; take out what is finished and what KumoMTA "
                "would choke on, into the quarantine; write lists of what is lost and uncertain",
                proof="the spool is vetted again and counted",
                by_hand=("kumodr spool reconcile --spool DIR/spool --apply", "kumodr spool vet --spool DIR/spool"),
            ),
        ),
        Step(
            "place", "the recovered state becomes the site's",
            partial(place.put_in_place, scene), proof=partial(place.is_in_place, scene),
            asks=partial(_place_question, scene), budget=60, limit=3600,
            words=Words(
                "rename the spool into its place; what was there is moved aside and kept. Configuration, logs and data "
                "of the other services are put where they are gone, and stay as they are where they survive",
                proof="both halves of the spool are in their place",
                by_hand=("mv META META.before; mv DIR/spool/meta META", "mv DATA DATA.before; mv DIR/spool/data DATA"),
            ),
        ),
        Step(
            "start", "the services come up in order",
            partial(start.start, scene), check=partial(start.is_started, scene),
            budget=60, limit=600, on_failure="retry",
            words=Words(
                "start Redis and Prometheus, then the others, the mail server last", "every service runs",
                by_hand=("docker-compose up -d", "systemctl start kumod"),
            ),
        ),
        Step(
            "recovered", "alive is not recovered: the whole spool must be loaded",
            partial(start.recovered, scene), budget=120, limit=3600,
            words=Words(
                "wait until the mail server is alive and says that it loaded its spool; compare the number with what "
                "the vetted spool held",
                by_hand=("kumodr health", "grep 'enumeration done' LOG"),
            ),
        ),
        Step(
            "canary", "a message is taken and delivered",
            partial(start.canary, scene), budget=30, limit=120, on_failure="retry",
            words=Words(
                "hand a message to the plan's runbooks.canary in, and follow it by its id to its delivery",
                by_hand=("kumodr mail-test --to ADDRESS",),
            ),
        ),
        Step(
            "prove", "how long it took and what it cost, against the objectives",
            partial(prove.prove, scene), budget=10, limit=60,
            words=Words(
                "measure from the last record of mail before the disaster to the first message that was taken and "
                "delivered after it", by_hand=("kumodr spool lost --spool DIR/spool",),
            ),
        ),
    )  # fmt: skip
    return Runbook(NAME, TITLE, steps, "full_system")


def _stop_question(scene: Scene, context: Context) -> str:
    return f"{', '.join(stop.running(scene, context))} of {scene.plan.site} will be stopped. Go on?"


def _place_question(scene: Scene, context: Context) -> str:
    facts = context.facts
    age = age_text((context.clock() - time_of_text(facts["until"])).total_seconds())
    return (
        f"The spool of {scene.plan.site} becomes the state of {facts['until'][:19]} UTC, {age} old: "
        f"{facts['expected']} messages will be sent at once, {facts['lost']} are known to be lost. Put it in place?"
    )


def _restore_preview(scene: Scene, context: Context) -> str:
    return f"would restore it beside {scene.meta}, and read all of it"
