"""A page with one section for each benchmark: writing one leaves the others as they are."""

import re
from pathlib import Path

_BEGINNING = (
    "# Benchmarks\n\nWritten by `script/bench`; each section is replaced when its benchmark runs again. "
    "These are measurements of one machine, to compare tools with each other.\n"
)


def write_section(page: Path, name: str, text: str) -> None:
    """Given a page, a section's name (a word) and its text, put the text there, replacing that section only."""
    old = page.read_text(encoding="utf-8") if page.exists() else _BEGINNING
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    place = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    known = place.search(old) is not None
    new = place.sub(lambda _: section, old, count=1) if known else f"{old.rstrip()}\n\n{section}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(new, encoding="utf-8")
