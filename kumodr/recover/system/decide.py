"""Take out of the restored spool what the evidence says is finished, before a server can send it again."""

from datetime import timedelta

from kumodr import errors
from kumodr.clock import text_of_time, time_of_text
from kumodr.ledger.evidence import find_evidence
from kumodr.reconcile.apply import apply
from kumodr.reconcile.lists import write_lists
from kumodr.reconcile.plan import reconcile
from kumodr.reconcile.treatments import FINISHED, STAYING, UNCERTAIN, Terms
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Outcome
from kumodr.spool.vet import DAMAGED, LOG_DAMAGED, NO_CURRENT, vet_and_count

_BAD = (DAMAGED, LOG_DAMAGED, NO_CURRENT)


def decide(scene: Scene, context: Context) -> Outcome:
    """Reconcile the restored spool with the stream, the restored logs and those that survive here, and apply it.

    Lists of what is lost and uncertain are written beside it. Repeatable: what is taken away is in the quarantine
    first, and a new plan says what is left to do (`reconcile/apply.py`).
    """
    work, wanted = scene.work(context.run), scene.wanted
    meta, data, kind = work / "spool" / "meta", work / "spool" / "data", scene.spool.kind
    known = wanted.disaster or context.facts.get("last_write")
    terms = Terms(
        starts=context.clock(),
        disaster=time_of_text(known) if known else None,
        uncertain=wanted.uncertain,
        max_age=timedelta(seconds=wanted.max_age),
        retry_interval=timedelta(seconds=wanted.retry_interval),
    )
    with reconcile(meta, data, kind, find_evidence(work / "spool", scene.logs), terms, context.progress) as plan:
        write_lists(plan, work / "lists")
        counts = plan.counts()
        lost, perhaps = plan.lost_counts()
        disaster = plan.disaster
        problems = plan.logs.problems
        done = apply(plan, meta, data, kind, context.progress)
    staying = sum(counts[name] for name in STAYING)
    others = {name: count for name, count in counts.items() if count and name not in (*STAYING, UNCERTAIN, FINISHED)}
    warnings = [f"evidence is damaged: {each}" for each in problems]
    if counts[UNCERTAIN]:
        warnings.append(f"{counts[UNCERTAIN]} messages may have been sent already: {wanted.uncertain}; {work}/lists")
    if lost or perhaps:
        warnings.append(f"{lost} messages are lost, {perhaps} more perhaps: {work}/lists")
    warnings += [f"{count} messages put aside: {name}" for name, count in others.items()]
    text = (
        f"{staying} to send, {counts[FINISHED]} finished and taken out, {counts[UNCERTAIN]} uncertain "
        f"({wanted.uncertain}), {lost} lost, {perhaps} perhaps; {done.moved} moved into the quarantine"
    )
    facts = {
        "finished": counts[FINISHED],
        "uncertain": counts[UNCERTAIN],
        "lost": lost,
        "perhaps_lost": perhaps,
        "disaster": known or (text_of_time(disaster) if disaster else None),
    }
    return Outcome(text, facts, tuple(warnings))


def is_safe(scene: Scene, context: Context) -> Outcome:
    """Return how many messages a server must find in the spool that is safe to start on. Raise StepFailed."""
    spool = scene.work(context.run) / "spool"
    vetted = vet_and_count(
        spool / "meta", spool / "data", scene.spool.kind, context.clock(), timedelta(seconds=scene.wanted.max_age)
    )
    bad = [each for each in vetted.findings if each.reason in _BAD or each.id is not None]
    if bad:
        raise errors.StepFailed(
            f"the spool is not safe to start on: {bad[0].reason}: {bad[0].effect} {bad[0].id or ''}"
        )
    return Outcome(f"safe to start on: {vetted.meta_count} messages", {"expected": vetted.meta_count})
