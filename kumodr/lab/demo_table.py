"""How the demo ended: the closing table, and whether every promise held."""

import os
import sys

from kumodr.cli.terminal import age_text, size_text
from kumodr.lab.demo_story import Result

_SHOWN = 5


def verdict(result: Result) -> list[str]:
    """Given what was measured, return each promise that was broken, one sentence each; none where all held."""
    broken: list[str] = []
    if result.lost_although_protected:
        count = len(result.lost_although_protected)
        broken.append(f"{count} messages are lost that were accepted before the end of the stream")
    if result.sent_twice:
        broken.append(f"{len(result.sent_twice)} messages were sent twice")
    if result.left_in_queue:
        broken.append(f"{result.left_in_queue} messages did not leave the queue")
    if result.recovered == 0:
        broken.append("nothing was recovered")
    if result.accepted == 0 or result.delivered_before == 0:
        broken.append("there was no traffic to judge by")
    return broken


def lines_of(result: Result, broken: list[str]) -> list[str]:
    """Given what was measured, return the closing table and what it means."""
    allowed = result.objectives
    rows = [
        ("accepted before the disaster", str(result.accepted), ""),
        ("delivered before", str(result.delivered_before), ""),
        ("recovered", str(result.recovered), ""),
        ("  finished by the evidence, not sent again", str(result.finished), ""),
        ("  uncertain, held back", str(result.uncertain), ""),
        ("  of these never arrived, put back", str(result.put_back), ""),
        ("  others put aside", str(result.quarantined), ""),
        ("delivered after", str(result.delivered_after), ""),
        ("lost (accepted after the last segment)", str(len(result.lost)), ""),
        ("sent twice", str(len(result.sent_twice)), "0"),
        ("time to accept mail", f"{result.time_to_accept:.1f} s", age_text(allowed["critical_services"])),
        ("time to full", f"{result.time_to_full:.1f} s", age_text(allowed["full_system"])),
        ("age of the recovery point", f"{result.point_age:.1f} s", age_text(allowed["queue"])),
        ("vault", size_text(result.stored_bytes), ""),
    ]
    wide = max(len(row[0]) for row in rows)
    lines = ["", _bold(f"{'':<{wide}}  {'MEASURED':>10}  {'OBJECTIVE':>10}")]
    lines += [f"{name:<{wide}}  {measured:>10}  {objective:>10}".rstrip() for name, measured, objective in rows]
    lines += ["", *_named("lost", result.lost), *_named("sent twice", result.sent_twice)]
    if result.lost:
        lines.append(
            f"What is lost was accepted in the last {result.point_age:.1f} s, after the last segment in the vault; "
            "--json gives all ids."
        )
    lines += ["", *(f"BROKEN: {each}" for each in broken)]
    if not broken:
        lines.append(f"Every message is accounted for ({result.point}).")
    return lines


def _named(what: str, ids: tuple[str, ...]) -> list[str]:
    if not ids:
        return [f"{what}: none"]
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return [f"{what}: {' '.join(ids[:_SHOWN])}{more}"]


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
