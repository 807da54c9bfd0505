"""The runbook of damaged data."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from kumodr.plan.model import Objectives
from kumodr.recover.data import diagnosis, hold, put, reconciled, report, union
from kumodr.recover.system import start
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Outcome, Runbook, Step, Words

NAME = "recover-data"
TITLE = "Bring damaged data back, with everything that can still be read of it"


def recover_data(parameters: Mapping[str, Any]) -> Runbook:
    """Given the values of `Wanted`, return the runbook. Nothing is opened yet, but the plan for its objectives."""
    scene = Scene(parameters)
    return steps_on(scene, scene.plan.objectives)


def steps_on(scene: Scene, objectives: Objectives) -> Runbook:
    """Given a scene and the objectives that budgets come from, return the runbook."""
    steps = (
        Step(
            "diagnose", "know which component is damaged, by evidence, before anything is touched",
            partial(diagnosis.diagnose, scene), reads=True, budget=objectives.data / 10, limit=objectives.data,
            words=Words(
                "read every block, log and message of the spool, what Redis would load, and every block of Prometheus, "
                "by their checksums; one verdict for each. See that the vault answers and the key opens it",
                by_hand=("kumodr spool diagnose", "redis-check-rdb COPY", "promtool tsdb list COPY", "kumodr health"),
            ),
        ),
        Step(
            "stop", "nothing may write to what is going to be replaced",
            partial(hold.stop, scene), check=partial(hold.is_stopped, scene), proof=partial(hold.stands_still, scene),
            asks=partial(_stop_question, scene), budget=60, limit=1800,
            words=Words(
                "end the services whose data is damaged, the mail server first; it gets 300 s, because one that is "
                "killed leaves deliveries out of its log",
                "no service runs whose data is damaged", "no service runs whose data is damaged",
                ("docker-compose stop -t 300 kumod", "systemctl stop kumod"),
            ),
        ),
        Step(
            "capture", "the logs say what was delivered until the end",
            partial(hold.capture, scene), check=partial(reconciled.is_sound, scene),
            budget=objectives.queue, limit=objectives.data, on_failure="ask",
            words=Words(
                "store the logs as a recovery point; the damaged spool is read where it is, and kept",
                "the spool is sound", by_hand=("kumodr backup logs",),
            ),
        ),
        Step(
            "choose", "know what fills the gaps",
            partial(hold.choose, scene), reads=True, budget=30, limit=600,
            words=Words(
                "take the newest state in the vault, or the one of --at; see that the disk is large enough",
                by_hand=("kumodr points",),
            ),
        ),
        Step(
            "restore", "the vault's copy stands beside the damaged data",
            partial(hold.bring_back, scene), check=partial(hold.is_restored, scene),
            budget=objectives.critical_services / 2, limit=objectives.data, on_failure="ask",
            words=Words(
                "restore the copy of each damaged component, and of the logs, beside the spool; open and read all of "
                "it. Where that cannot be done and a person leaves it out, the spool is made of what can be read alone",
                "this run's copy holds the marker of a whole restore", by_hand=("kumodr restore --to DIR/vault",),
            ),
        ),
        Step(
            "salvage", "every message comes back that either of the two has",
            partial(union.join, scene), check=partial(union.is_joined, scene),
            budget=objectives.critical_services / 2, limit=objectives.data,
            words=Words(
                "join, message by message, what can be read of the damaged spool with the copy: the newest wins, and "
                "what is known to be finished stays away. Lists say where each message comes from, and what could not "
                "be read",
                "the spool is sound, or this run's record of the result is there",
                by_hand=("kumodr spool salvage SPOOL --copy DIR/vault/spool --to DIR",),
            ),
        ),
        Step(
            "reconcile", "nothing is sent that was delivered, and what is lost is known by name",
            partial(reconciled.reconcile, scene), check=partial(reconciled.is_sound, scene),
            proof=partial(reconciled.is_safe, scene),
            budget=objectives.critical_services / 4, limit=objectives.data,
            words=Words(
                "compare the result with the stream and every log; take out what is finished and what KumoMTA would "
                "choke on, into the quarantine; write lists of what is lost and uncertain",
                "the spool is sound", "the spool is vetted again and counted",
                ("kumodr spool reconcile --spool DIR/spool --apply", "kumodr spool vet --spool DIR/spool"),
            ),
        ),
        Step(
            "place", "what was recovered becomes the site's",
            partial(put.put, scene), check=partial(put.is_sound, scene), proof=partial(put.is_in_place, scene),
            asks=partial(_place_question, scene), budget=60, limit=3600,
            words=Words(
                "rename the spool, Redis' files and Prometheus' damaged blocks into their place; what was there gets "
                "another name beside it, and is kept",
                "every component is sound", "it is in its place",
                ("mv META META.before; mv DIR/spool/meta META", "mv DATA DATA.before; mv DIR/spool/data DATA"),
            ),
        ),
        Step(
            "start", "the services come up in order",
            partial(put.start, scene), check=partial(put.is_started, scene), budget=60, limit=600, on_failure="retry",
            words=Words(
                "start the services that were stopped, the mail server last", "they run",
                by_hand=("docker-compose up -d", "systemctl start kumod"),
            ),
        ),
        Step(
            "recovered", "alive is not recovered: the whole spool must be loaded",
            partial(put.recovered, scene), check=partial(put.is_sound, scene), budget=120, limit=3600,
            words=Words(
                "wait until the mail server is alive and says that it loaded its spool, compare the number with what "
                "the vetted spool held; wait until Redis and Prometheus answer",
                "every component is sound", by_hand=("kumodr health", "grep 'enumeration done' LOG"),
            ),
        ),
        Step(
            "canary", "a message is taken and delivered",
            partial(start.canary, scene), check=partial(_no_canary, scene), budget=30, limit=120, on_failure="retry",
            words=Words(
                "hand a message to the plan's runbooks.canary in, and follow it by its id to its delivery",
                "the spool is sound", by_hand=("kumodr mail-test --to ADDRESS",),
            ),
        ),
        Step(
            "report", "what was saved, what was not, and what it took",
            partial(report.report, scene), check=partial(report.is_sound, scene), budget=10, limit=60,
            words=Words(
                "sum up the messages by origin, those that are lost and uncertain, the times against the objectives, "
                "and how many messages removing the spool for the last backup would have lost",
                "every component is sound", by_hand=("kumodr spool lost --spool DIR/spool",),
            ),
        ),
    )  # fmt: skip
    return Runbook(NAME, TITLE, steps, "data")


def _no_canary(_scene: Scene, context: Context) -> Outcome | None:
    return hold.whole(context, "spool")


def _stop_question(scene: Scene, context: Context) -> str:
    names = ", ".join(hold.affected(scene, context))
    return f"Damaged: {', '.join(context.facts['damaged'])}. {names} of {scene.plan.site} will be stopped. Go on?"


def _place_question(scene: Scene, context: Context) -> str:
    facts = context.facts
    if "spool" not in facts["damaged"]:
        return f"{', '.join(facts['damaged'])} of {scene.plan.site} will be the vault's. Put it in place?"
    saved = facts["saved"]
    return (
        f"Of {saved['messages']} messages that were saved, {saved['from_copy']} of them from the vault, "
        f"{facts['expected']} will be sent at once; {facts['lost']} are known to be lost. Put them in place?"
    )
