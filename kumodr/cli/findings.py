"""Findings as people and programs read them: the same for every verb that looks and judges."""

from collections.abc import Sequence
from typing import Any

from kumodr.components.protocol import Finding

_MARKS = {"good": "ok", "warning": "WARNING", "bad": "BAD"}


def lines_of(found: Sequence[tuple[str, Finding]]) -> list[str]:
    """Given findings, each with the place that it is about, return the lines that a person reads."""
    lines: list[str] = []
    for place, each in found:
        lines.append(f"{_MARKS[each.level]:<8} {place:<11} {each.text}")
        if each.remedy:
            lines.append(f"{'':<20} → {each.remedy}")
    if not is_good(found):
        lines.append("not everything is as it should be; see above")
    return lines


def document_of(found: Sequence[tuple[str, Finding]]) -> dict[str, Any]:
    """Given findings, return the document for `--json`."""
    findings = [
        {"place": place, "level": each.level, "text": each.text, "remedy": each.remedy} for place, each in found
    ]
    return {"good": is_good(found), "findings": findings}


def is_good(found: Sequence[tuple[str, Finding]]) -> bool:
    """Given findings, say whether nothing speaks against what was looked at."""
    return all(each.level == "good" for _, each in found)
