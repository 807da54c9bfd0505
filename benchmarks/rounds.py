"""Measure the tools in turn, round by round, so that whatever the machine does meanwhile meets all alike."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import Command, CommandFailed, Usage, measure
from benchmarks.tools import PHASES, Place, Tool


@dataclass(frozen=True)
class Sample:
    """One measurement. `stored` is the size of what the tool keeps after it, in bytes."""

    tool: str
    phase: str
    round: int
    usage: Usage
    stored: int


@dataclass(frozen=True)
class Summary:
    """A tool's phase over all rounds: medians, with the fastest and slowest; the peak is the highest of all rounds."""

    tool: str
    phase: str
    seconds: float
    fastest: float
    slowest: float
    processor: float
    peak: int
    stored: int


def run_rounds(
    tools: Sequence[Tool], spool: Path, work: Path, rounds: int, say: Callable[[str], None]
) -> tuple[list[Sample], dict[str, str]]:
    """Given the tools and a spool, return the samples, and for each tool that failed, how: it is then left out."""
    samples: list[Sample] = []
    failures: dict[str, str] = {}
    for number in range(rounds):
        turned = [*tools[number % len(tools) :], *tools[: number % len(tools)]]
        folder = work / f"round-{number + 1}"
        for phase in ("prepare", *PHASES):
            for tool in turned:
                if tool.name in failures:
                    continue
                place = Place(spool, folder / tool.name, folder / tool.name / "restored")
                try:
                    if phase == "prepare":
                        prepare(tool, place)
                        continue
                    usage = run_phase(tool, phase, place)
                    parts = run_parts(tool, place) if phase == "restore" else {}
                except CommandFailed as error:
                    failures[tool.name] = f"{phase}: {error}"
                    say(f"{tool.name} is left out: {failures[tool.name]}")
                    continue
                stored = size_of(place.store)
                found = {tool.name: usage} | parts
                samples += [Sample(name, phase, number + 1, each, stored) for name, each in found.items()]
                for name, each in found.items():
                    say(f"round {number + 1}: {PHASES[phase]:<17} {name:<7} {each.seconds:8.2f} s")
        shutil.rmtree(folder)
    return samples, failures


def prepare(tool: Tool, place: Place) -> None:
    """Given a tool and its place, make the place and an empty store. Not part of any figure."""
    place.store.parent.mkdir(parents=True, mode=0o700)
    for command in tool.prepare(place):
        measure(command)


def run_phase(tool: Tool, phase: str, place: Place) -> Usage:
    """Given a phase, run it with all that it reads in memory and nothing waiting to be written. Raise CommandFailed.

    What a restore gave back is compared with the spool, byte for byte, and removed.
    """
    if phase == "restore":
        return run_restore(tool, place, tool.restore(place))
    warm(place.store if phase == "verify" else place.spool)
    os.sync()
    return measure(getattr(tool, phase)(place))


def run_parts(tool: Tool, place: Place) -> dict[str, Usage]:
    """Given a tool, run its other restores; return them by the tool's name and what is different."""
    return {f"{tool.name}, {name}": run_restore(tool, place, each) for name, each in tool.parts(place).items()}


def run_restore(tool: Tool, place: Place, command: Command) -> Usage:
    """Given a restore, run it and compare what came back. Raise CommandFailed."""
    place.target.mkdir(mode=0o700)
    warm(place.store)
    os.sync()
    usage = measure(command)
    difference = differs(place.spool, tool.restored(place))
    shutil.rmtree(place.target)
    if difference:
        raise CommandFailed(difference)
    return usage


def warm(path: Path) -> None:
    """Given a file or folder, read it, so that it is in the page cache."""
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 20):
                pass


def size_of(store: Path) -> int:
    """Given a file or folder, return the bytes of the files in it."""
    return sum(each.stat().st_size for each in (store, *store.rglob("*")) if each.is_file())


def differs(spool: Path, restored: Path) -> str | None:
    """Given the spool and what came back, return the first file of a database that is not the same, or None."""
    for half in ("meta", "data"):
        for path in sorted((spool / half).iterdir()):
            if path.suffix not in (".sst", ".log") and not path.name.startswith(("CURRENT", "MANIFEST-")):
                continue
            again = restored / half / path.name
            if not again.is_file():
                return f"{half}/{path.name} did not come back"
            if subprocess.run(["cmp", "-s", str(path), str(again)], check=False).returncode:
                return f"{half}/{path.name} came back changed"
    return None


def summaries(samples: Sequence[Sample]) -> list[Summary]:
    """Given all samples, return one summary for each phase and tool, in the order of the samples."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.phase, sample.tool), []).append(sample)
    found: list[Summary] = []
    for (phase, tool), group in groups.items():
        seconds = [sample.usage.seconds for sample in group]
        processor = median(sample.usage.processor for sample in group)
        peak = max(sample.usage.peak for sample in group)
        stored = round(median(sample.stored for sample in group))
        found.append(Summary(tool, phase, median(seconds), min(seconds), max(seconds), processor, peak, stored))
    return found
