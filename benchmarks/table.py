"""The measurements as text for a page."""

from collections.abc import Mapping, Sequence

from benchmarks.mail import DESCRIPTION
from benchmarks.rounds import Summary
from benchmarks.spool import Dataset
from benchmarks.tools import PHASES, Tool

_MEGABYTE = 1_000_000

_HOW = """\
- Every figure is of a whole process, from start to end. In each round every phase is run with each tool in turn,
  first place rotating, each round with new stores on the same file system; what is read is in the page cache, and
  what earlier runs wrote is on the disk before the next begins. What came back is compared byte for byte.
- kumodr's restore does two things that the others' do not: it syncs every file to the disk, and it opens the databases
  and reads all of them. "not vetted" leaves the second out; "synced to disk" adds the first to restic's.
- Processor time includes the children that a tool waited for. Peak memory is resident memory, polled every 20 ms:
  the sum over the tool's processes at one moment (pages that they share count for each); the highest of all rounds.
"""


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Given heads and rows of text, return the lines of a table. The first column is left-aligned, the others right."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(heads))]
    marks = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(row: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return f"| {' | '.join([row[0].ljust(widths[0]), *rest])} |"

    return [line(cells[0]), line(marks), *(line(row) for row in cells[1:])]


def phase_table(phase: str, found: Sequence[Summary], size: int) -> list[str]:
    """Given the summaries of all phases and the spool's size, return the table of one phase."""
    here = [each for each in found if each.phase == phase]
    ours = next((each.seconds for each in here if each.tool == "kumodr"), None)
    rows = [
        [
            each.tool,
            f"{each.seconds:.2f} s",
            f"{each.fastest:.2f}–{each.slowest:.2f}",
            "" if phase == "unchanged" else f"{size / _MEGABYTE / each.seconds:.0f} MB/s",
            f"{each.seconds / ours:.2f} ×" if ours else "",
            f"{each.processor:.2f} s",
            f"{each.peak / 2**20:.0f} MiB",
            f"{each.stored / _MEGABYTE:.1f} MB",
        ]
        for each in sorted(here, key=lambda each: each.seconds)
    ]
    heads = (PHASES[phase], "time", "range", "speed", "time ÷ kumodr's", "processor", "peak memory", "stored")
    return columns(heads, rows)


def goals(found: Sequence[Summary]) -> list[str]:
    """Given the summaries, return the table of what was to be reached; empty where kumodr was not measured."""
    by = {(each.phase, each.tool): each for each in found}
    rows: list[list[str]] = []
    for phase, factor in (("first", 3), ("restore", 2)):
        ours, theirs = by.get((phase, "kumodr")), by.get((phase, "restic"))
        if ours and theirs:
            ratio = theirs.seconds / ours.seconds
            rows.append([PHASES[phase], f"≥ {factor} × restic", f"{ratio:.2f} ×", _yes(ratio >= factor)])
    if unchanged := by.get(("unchanged", "kumodr")):
        rows.append([PHASES["unchanged"], "≤ 0.20 s", f"{unchanged.seconds:.2f} s", _yes(unchanged.seconds <= 0.2)])
    if peaks := [each.peak for each in found if each.tool == "kumodr"]:
        peak = max(peaks) / 2**20
        rows.append(["peak memory, every phase", "< 300 MiB", f"{peak:.0f} MiB", _yes(peak < 300)])
    return columns(("goal", "wanted", "measured", "reached"), rows) if rows else []


def restore_parts(found: Sequence[Summary]) -> list[str]:
    """Given the summaries, return what the time of kumodr's restore goes into, and how each part stands to restic."""
    by = {each.tool: each for each in found if each.phase == "restore"}
    whole, bare, other = by.get("kumodr"), by.get("kumodr, not vetted"), by.get("restic")
    if whole is None or bare is None:
        return []
    parts = [
        ("fetch, open, check, write, sync", bare.seconds, bare.processor),
        ("open the databases, read everything", whole.seconds - bare.seconds, whole.processor - bare.processor),
        ("the whole restore", whole.seconds, whole.processor),
    ]
    rows = [
        [
            name,
            f"{seconds:.2f} s",
            f"{processor:.2f} s",
            f"{other.seconds / seconds:.2f} ×" if other and seconds else "",
        ]
        for name, seconds, processor in parts
    ]
    return columns(("kumodr's restore", "time", "processor", "restic's restore ÷ it"), rows)


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def facts(title: str, pairs: Mapping[str, str]) -> str:
    """Given a title and facts, return one line of a list."""
    return f"- {title}: {'; '.join(f'{name} {value}' for name, value in pairs.items())}"


def dataset_line(made: Dataset) -> str:
    """Given the spool, return what it is in one line."""
    return (
        f"- Spool: {made.messages:,} messages, {made.bodies / _MEGABYTE:,.0f} MB of bodies; RocksDB with kumod's "
        f"options (Snappy, 64 MiB memory tables, table format 5), on disk {made.size / _MEGABYTE:,.0f} MB in "
        f"{made.files} files, {made.tables} of them tables, {made.tail / _MEGABYTE:.1f} MB of it in "
        f"write-ahead logs; {DESCRIPTION}; seed {made.seed}"
    )


def spool_section(
    found: Sequence[Summary],
    failures: Mapping[str, str],
    made: Dataset,
    tools: Sequence[Tool],
    about: Mapping[str, Mapping[str, str]],
    rounds: int,
    day: str,
) -> str:
    """Given all that was found, return the section of the page."""
    lines = ["## A spool, beside restic, borg and tar", ""]
    lines += [
        f"Measured {day} by `script/bench`, median of {rounds}; speed is the spool's size on disk by the time.",
        "",
    ]
    lines += [dataset_line(made), *(facts(title, pairs) for title, pairs in about.items()), ""]
    if reached := goals(found):
        lines += [*reached, ""]
    for phase in PHASES:
        lines += [*phase_table(phase, found, made.size), ""]
    if parts := restore_parts(found):
        lines += [*parts, ""]
    lines += [f"**{name} failed** in {text}" for name, text in failures.items()] + [""] * bool(failures)
    lines += [f"- {tool.name}: {tool.manner}" for tool in tools]
    return "\n".join([*lines, _HOW])
