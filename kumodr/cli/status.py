"""`kumodr status`: the objectives against now, in one screen."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.cli.options import add_vault_option, plan_if_any, vault_of
from kumodr.cli.terminal import Terminal, age_text, size_text
from kumodr.clock import system_clock, text_of_time
from kumodr.components.registry import NAMES, configured
from kumodr.plan.model import Objectives, ProtectPlan
from kumodr.protect.figures import published
from kumodr.recover.choose import Streams
from kumodr.recover.objectives import Protection, protections
from kumodr.recover.ranges import ranges
from kumodr.recover.standing import Standing, standing
from kumodr.vault.points import survey
from kumodr.vault.proofs import newest_proofs
from kumodr.vault.verify import latest_verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_vault_option(parser)
    parser.epilog = (
        "example:\n  kumodr status\n  kumodr status --vault /mnt/vault    on another machine, without a plan"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = plan_if_any(arguments)
    vault = vault_of(arguments, plan)
    here = plan is not None and vault.store.address in (plan.vault.url, plan.vault.url.removeprefix("file://"))
    found = survey(vault, {})
    now = system_clock()
    objectives = plan.objectives if plan else Objectives()
    stored = {section.component for point in found.points for section in point.sections}
    components = configured(plan) if plan else tuple(name for name in NAMES if name in stored)
    continuous, wrong = ranges(found.points, Streams(vault, {}))
    stands = standing(
        found.points,
        continuous,
        published(Path(plan.state)) if plan is not None and here else None,
        newest_proofs(vault),
        objectives.queue,
        (plan.protect if plan else ProtectPlan()).every,
        now,
    )
    verification = {point.id: latest_verification(vault, point) for point in found.points[-20:]}
    states = protections(found.points, components, objectives, now, verification, stands.recoverable_until)
    missed = [each for each in states if each.problem]
    problems = [str(each) for each in (*found.problems, *wrong)]
    lines = [f"{plan.site if plan else 'vault'}: {len(found.points)} recovery points in {vault.store.address}"]
    lines += [f"  continuous from {_moment(each.begun)} to {_moment(each.until)} UTC" for each in continuous[-3:]]
    lines += [f"PROBLEM: {each}" for each in stands.problems]
    lines += [f"PROBLEM: {each.component}: {each.problem}; run `kumodr backup {each.component}`" for each in missed]
    lines += [f"PROBLEM in the vault: {each}" for each in problems]
    lines += ["", *_protection(stands, objectives.queue), "", *_table(states, terminal)]
    lines += ["", *(f"not proved: {each}" for each in stands.unproved)] if stands.unproved else []
    document = {
        "site": plan.site if plan else None,
        "time": text_of_time(now),
        "points": len(found.points),
        "protection": _document(stands),
        "components": [
            {
                "component": each.component,
                "point": each.point.id if each.point else None,
                "age_seconds": each.age,
                "objective_seconds": each.objective,
                "problem": each.problem,
                "verified": each.verified,
            }
            for each in states
        ],
        "problems": [*stands.problems, *problems],
    }
    terminal.result(document, lines)
    return errors.IMPERFECT if missed or problems or stands.problems else errors.DONE


def _table(states: tuple[Protection, ...], terminal: Terminal) -> list[str]:
    rows = [
        [
            each.component,
            "MISSED" if each.problem else "met",
            age_text(each.age) if each.age is not None else "-",
            age_text(each.objective),
            each.point.id if each.point else "-",
            f"{each.verified['level']} {'good' if each.verified['good'] else 'BAD'}" if each.verified else "never",
        ]
        for each in states
    ]
    return terminal.table(["COMPONENT", "OBJECTIVE", "AGE", "ALLOWED", "POINT", "VERIFIED"], rows, right=(2, 3))


def _protection(stands: Standing, allowed: float) -> Iterator[str]:
    """Yield how the loop stands, a line for each question."""
    age, figures = stands.age, stands.figures
    newest = "nothing can be recovered" if age is None else f"the newest recoverable message is {age_text(age)} old"
    yield f"{'protection':<11} {_state(stands)}: {newest} (allowed: {age_text(allowed)})"
    if figures is not None:
        yield f"{'at risk':<11} {figures.messages_at_risk:,} messages, {size_text(figures.bytes_at_risk)}"
        base = f"{figures.base}, taken {figures.base_taken}" if figures.base else "none yet"
        yield f"{'base':<11} {base}; new bases due in the last day: {len(stands.recent_rebases)}"
        yield from (f"{'':<13} {each.time[11:19]} {each.cause}: {each.reason}" for each in stands.recent_rebases[-5:])
        yield f"{'backlog':<11} {size_text(figures.backlog_bytes)}; the vault refused {figures.vault_errors:,} times"
        share = f", {figures.uploaded_bytes / figures.accepted_bytes:.2f} of it" if figures.accepted_bytes else ""
        accepted, uploaded = size_text(figures.accepted_bytes), size_text(figures.uploaded_bytes)
        yield f"{'uploaded':<11} {uploaded} for {accepted} accepted{share}, since {figures.started}"
    proofs = [f"{level} {_ago(stands.proofs.get(level), stands.now)}" for level in ("shallow", "deep", "restore")]
    yield f"{'verified':<11} {' · '.join(proofs)}"


def _state(stands: Standing) -> str:
    if stands.figures is None:
        return "no loop is known here"
    return stands.figures.state if stands.running else "not running"


def _ago(moment: datetime | None, now: datetime) -> str:
    return "never" if moment is None else f"{age_text((now - moment).total_seconds())} ago"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _document(stands: Standing) -> dict[str, Any]:
    figures = stands.figures
    return {
        "running": stands.running,
        "recoverable_until": text_of_time(stands.recoverable_until) if stands.recoverable_until else None,
        "recovery_point_age_seconds": stands.age,
        "verified": {level: text_of_time(moment) for level, moment in stands.proofs.items()},
        "unproved": list(stands.unproved),
        "rebases_last_day": [asdict(each) for each in stands.recent_rebases],
        "loop": None if figures is None else asdict(figures),
    }
