"""`kumodr status`: the objectives against now, in one screen; what is wrong comes first."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from kumodr import errors
from kumodr.cli.options import add_vault_option, plan_if_any, vault_of, where_of
from kumodr.cli.terminal import Terminal, age_text, size_text
from kumodr.clock import system_clock, text_of_time
from kumodr.recover.objectives import Protection
from kumodr.recover.standing import Look, Standing, look, standing
from kumodr.vault.proofs import LEVELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_vault_option(parser)
    parser.epilog = (
        "Exit code 0: every objective is met. 3: something is wrong, and the first lines say what, and what to do.\n\n"
        "example:\n  kumodr status\n  kumodr status --vault /mnt/vault    on another machine, without a plan"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = plan_if_any(arguments)
    vault = vault_of(arguments, plan)
    local = plan is not None and where_of(arguments, plan) == plan.vault
    now = system_clock()
    seen = look(vault, plan, now, local=local)
    stands = standing(seen, now)
    site = plan.site if plan else None
    terminal.result(
        {"site": site, "time": text_of_time(now), "points": len(seen.points), **_document(stands)},
        _screen(site or "vault", vault.store.address, seen, stands, terminal),
    )
    return errors.IMPERFECT if stands.problems else errors.DONE


def _screen(site: str, address: str, seen: Look, stands: Standing, terminal: Terminal) -> Iterator[str]:
    count = len(stands.problems)
    verdict = f"{count} problem{'s' * (count > 1)}, worst first" if count else "all objectives are met"
    yield terminal.strong(f"{site}: {verdict}")
    yield from (f"PROBLEM: {each}" for each in stands.problems)
    yield ""
    yield from (f"{name:<11} {text}" for name, text in _protection(stands))
    spans = [f"continuous from {_moment(each.begun)} to {_moment(each.until)}" for each in seen.continuous[-3:]]
    yield f"{'vault':<11} {address}: {len(seen.points)} recovery points{''.join(f'; {each}' for each in spans)}"
    yield ""
    yield from _table(stands.components, terminal)
    if stands.unproved:
        yield ""
        yield from (f"not proved: {each}" for each in stands.unproved)


def _protection(stands: Standing) -> Iterator[tuple[str, str]]:
    """Yield how the loop stands, an answer for each question."""
    age, figures, now = stands.age, stands.figures, stands.now
    newest = "nothing can be recovered" if age is None else f"the newest recoverable message is {age_text(age)} old"
    yield "protection", f"{_state(stands)}: {newest} (allowed: {age_text(stands.objective)})"
    yield "at risk", _at_risk(stands)
    base = (
        f"{stands.base.id}, taken {_moment(stands.base.taken)}, {_ago(stands.base.taken, now)}"
        if stands.base
        else "none"
    )
    recent = stands.recent_rebases
    yield "last base", base + (f"; bases that became due in the last day: {len(recent)}" if figures else "")
    yield from (("", f"  {each.time[11:19]} {each.cause}: {each.reason}") for each in recent[-5:])
    if figures is not None:
        refused = f"the vault refused {figures.vault_errors:,} times" if figures.vault_errors else "no errors"
        yield "backlog", f"{size_text(figures.backlog_bytes)}; {refused} since {figures.started[:19]}Z"
        share = "" if stands.upload_ratio is None else f", {stands.upload_ratio:.2f} of it"
        yield "uploaded", f"{size_text(figures.uploaded_bytes)} for {size_text(figures.accepted_bytes)} accepted{share}"
    found = [(level, stands.proofs.get(level)) for level in LEVELS]
    yield (
        "verified",
        " · ".join(
            f"{level} {_ago(each.time, now) + f' ({each.point})' if each else 'never'}" for level, each in found
        ),
    )


def _state(stands: Standing) -> str:
    if stands.figures is None:
        return "no loop is known here"
    return stands.figures.state if stands.running else "not running"


def _at_risk(stands: Standing) -> str:
    figures = stands.figures
    if stands.running and figures and figures.messages_at_risk is not None and figures.bytes_at_risk is not None:
        return (
            f"{figures.messages_at_risk:,} messages, {size_text(figures.bytes_at_risk)}, read and not yet in the vault"
        )
    since = f"after {_moment(stands.recoverable_until)}" if stands.recoverable_until else "and is spooled"
    return f"all that came in {since}; how much that is, is not known"


def _ago(moment: datetime, now: datetime) -> str:
    return f"{age_text((now - moment).total_seconds())} ago"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _table(states: tuple[Protection, ...], terminal: Terminal) -> list[str]:
    rows = [
        [
            each.component,
            "MISSED" if each.problem else "met",
            age_text(each.age) if each.age is not None else "-",
            age_text(each.objective),
            each.point.id if each.point else "-",
            _verified(each),
        ]
        for each in states
    ]
    return terminal.table(["COMPONENT", "OBJECTIVE", "AGE", "ALLOWED", "POINT", "VERIFIED"], rows, right=(2, 3))


def _verified(state: Protection) -> str:
    """Return the newest result as text; what a record says is anybody's word, so only what is known is shown."""
    if not state.verified:
        return "never"
    level = state.verified["level"] if state.verified["level"] in LEVELS else "unknown"
    return f"{level} {'good' if state.verified['good'] else 'BAD'}"


def _document(stands: Standing) -> dict[str, Any]:
    figures, base = stands.figures, stands.base
    return {
        "met": not stands.problems,
        "protection": {
            "running": stands.running,
            "state": figures.state if figures and stands.running else None,
            "recoverable_until": text_of_time(stands.recoverable_until) if stands.recoverable_until else None,
            "recovery_point_age_seconds": stands.age,
            "objective_seconds": stands.objective,
            "messages_at_risk": figures.messages_at_risk if figures and stands.running else None,
            "bytes_at_risk": figures.bytes_at_risk if figures and stands.running else None,
            "backlog_bytes": figures.backlog_bytes if figures else None,
            "upload_ratio": stands.upload_ratio,
            "base": base.id if base else None,
            "base_taken": text_of_time(base.taken) if base else None,
            "verified": {level: text_of_time(each.time) for level, each in stands.proofs.items()},
            "verified_points": {level: each.point for level, each in stands.proofs.items()},
            "unproved": list(stands.unproved),
            "rebases_last_day": [asdict(each) for each in stands.recent_rebases],
            "loop": None if figures is None else asdict(figures),
        },
        "components": [
            {
                "component": each.component,
                "point": each.point.id if each.point else None,
                "age_seconds": each.age,
                "objective_seconds": each.objective,
                "problem": each.problem,
                "verified": each.verified,
            }
            for each in stands.components
        ],
        "problems": list(stands.problems),
    }
