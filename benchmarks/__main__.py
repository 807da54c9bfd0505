"""`script/bench`: measure kumodr beside other tools. `script/bench trials`: the long run of the kill trials.
`script/bench ledger`: a large spool reconciled with its delivery logs. `script/bench protect`: the loop.
`script/bench stream`: a day of stream restored on a base."""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import ledger, protect, restore_stream
from benchmarks.machine import machine, versions
from benchmarks.measure import CommandFailed
from benchmarks.page import write_section
from benchmarks.rounds import run_rounds, summaries
from benchmarks.spool import dataset
from benchmarks.table import spool_section
from benchmarks.tools import TOOLS
from benchmarks.trials import REPOSITORY, read_report, run_trials, trials_section

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def main() -> int:
    """Run the benchmark that the command line names and return the exit code."""
    arguments = parser().parse_args()
    os.umask(0o027)
    try:
        verbs = {"trials": trials, "ledger": reconciled, "protect": protected, "stream": streamed}
        return verbs.get(arguments.benchmark, spool)(arguments)
    except KeyboardInterrupt:
        say("interrupted; nothing was written to the page")
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="script/bench",
        description="measure kumodr beside other tools and write the figures to docs/benchmarks.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  script/bench --size 200M --rounds 1\n  script/bench trials --count 1000\n"
        "  script/bench ledger --records 1000000 --messages 100000",
    )
    found.add_argument(
        "benchmark", nargs="?", choices=("spool", "trials", "ledger", "protect", "stream"), default="spool"
    )
    found.add_argument(
        "--size", type=size, default=size("1G"), help="bytes of bodies in the spool, like 200M (default 1G)"
    )
    found.add_argument("--rounds", type=positive, default=3, help="how often each tool is measured (default 3)")
    found.add_argument("--only", type=names, default=list(TOOLS), help="these tools: " + ",".join(TOOLS))
    found.add_argument("--seed", type=int, default=1, help="the mail is made from it (default 1)")
    found.add_argument("--count", type=positive, default=1000, help="how many trials (default 1000)")
    found.add_argument("--records", type=positive, default=10_000_000, help="of delivery logs (default 10,000,000)")
    found.add_argument("--messages", type=positive, default=1_000_000, help="in the spool (default 1,000,000)")
    found.add_argument("--base", type=size, default=size("10G"), help="bytes of the base, for stream (default 10G)")
    found.add_argument("--minutes", type=positive, default=1440, help="of stream, for stream (default 1440: a day)")
    found.add_argument("--body", type=size, default=4000, help="mean size of a message, for stream (default 4k)")
    found.add_argument("--seconds", type=positive, default=60, help="of each rate, for protect (default 60)")
    found.add_argument("--trials", metavar="FILE", default="tests/test_trials.py", help="the test that runs them")
    found.add_argument("--work", type=Path, metavar="DIR", help="where to work (default: a new temporary folder)")
    found.add_argument("--keep", action="store_true", help="keep the spool that was made, for the next run with --work")
    found.add_argument("--page", type=Path, metavar="FILE", default=REPOSITORY / "docs" / "benchmarks.md")
    found.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to this file too")
    return found


def size(text: str) -> int:
    """Given a number with k, M or G, return the bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)b?", text.strip().lower())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 200M or 1G")
    return int(float(match[1]) * _UNITS[match[2]])


def positive(text: str) -> int:
    """Given a whole number above 0 as text, return it."""
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def names(text: str) -> list[str]:
    """Given tools' names with commas, return those, in the order of the table."""
    wanted = {name.strip() for name in text.split(",")}
    if unknown := wanted - set(TOOLS):
        raise argparse.ArgumentTypeError(f"no such tool: {', '.join(sorted(unknown))}")
    return [name for name in TOOLS if name in wanted]


def spool(arguments: argparse.Namespace) -> int:
    """Measure the tools on a spool. Return 1 where one of them failed; the others' figures are written all the same."""
    tools = [TOOLS[name] for name in arguments.only]
    with work_folder(arguments.work, arguments.keep) as work:
        about = {"Machine": machine(work), "Versions": versions(tools)}
        say(f"making a spool with {arguments.size / 1e6:,.0f} MB of mail in {work}")
        made = dataset(work / "dataset", arguments.size, arguments.seed)
        samples, failures = run_rounds(tools, made.spool, work, arguments.rounds, say)
    found = summaries(samples)
    day = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    text = spool_section(found, failures, made, tools, about, arguments.rounds, day)
    if found:
        write_section(arguments.page, "spool", text)
    if arguments.json:
        document = {
            "benchmark": "spool",
            "measured": day,
            **{title.lower(): pairs for title, pairs in about.items()},
            "dataset": asdict(made),
            "rounds": arguments.rounds,
            "summary": [asdict(each) for each in found],
            "samples": [asdict(each) for each in samples],
            "failures": failures,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if failures else 0


def trials(arguments: argparse.Namespace) -> int:
    """Run the kill trials and record their report. Return 1 where they failed or wrote no report."""
    with work_folder(arguments.work, keep=False) as work:
        report = work / "trials-report.json"
        report.unlink(missing_ok=True)
        about = machine(work)
        code, seconds = run_trials(arguments.count, report, arguments.trials)
        try:
            found = read_report(report)
        except ValueError as error:
            say(str(error))
            return 1
        finally:
            report.unlink(missing_ok=True)
    day = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    text = trials_section(found, arguments.count, code == 0, seconds, about, day)
    write_section(arguments.page, "trials", text)
    if arguments.json:
        document = {"benchmark": "trials", "measured": day, "machine": about, "passed": code == 0, "report": found}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if code else 0


def reconciled(arguments: argparse.Namespace) -> int:
    """Measure a spool reconciled with its logs. Return 1 where the plan's counts are not those that were made."""
    with work_folder(arguments.work, arguments.keep) as work:
        about = {"Machine": machine(work), "Versions": versions(())}
        try:
            made, usages = ledger.run(work, arguments.records, arguments.messages, say)
        except (ValueError, CommandFailed) as error:
            say(str(error))
            return 1
    day = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    text = ledger.ledger_section(made, usages, about, day)
    write_section(arguments.page, "ledger", text)
    if arguments.json:
        figures = {name: asdict(each) for name, each in usages.items()}
        document = {"benchmark": "ledger", "measured": day, "made": asdict(made), "usages": figures}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0


def streamed(arguments: argparse.Namespace) -> int:
    """Restore a base with a stream on it, beside the base alone. Return 1 where what came back is not what was made."""
    with work_folder(arguments.work, keep=False) as work:
        about = {"Machine": machine(work), "Versions": versions(())}
        folder = work / "round-made"
        folder.mkdir(mode=0o700)
        made = restore_stream.make(folder, arguments.base, arguments.minutes, 100, arguments.body, arguments.seed, say)
        try:
            samples = restore_stream.run(made, work, arguments.rounds, say)
        except ValueError as error:
            say(str(error))
            return 1
    day = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    text = restore_stream.section(made, samples, about, arguments.rounds, day)
    write_section(arguments.page, "stream", text)
    if arguments.json:
        document = {"benchmark": "stream", "measured": day, **restore_stream.document(made, samples)}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0


def protected(arguments: argparse.Namespace) -> int:
    """Measure the loop at 100 and 1,000 messages a second, and what it takes from a writer."""
    with work_folder(arguments.work, keep=False) as work:
        about = machine(work)
        measured = protect.run(work, (100, 1000), arguments.seconds, say)
        speeds = protect.slowdown(work, arguments.rounds, min(arguments.seconds, 10), say)
    day = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    text = protect.section(measured, speeds, about, day)
    write_section(arguments.page, "protect", text)
    if arguments.json:
        document = {"benchmark": "protect", "measured": day, "machine": about, "speeds": speeds}
        document["rates"] = [asdict(each) for each in measured]
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0


@contextmanager
def work_folder(wanted: Path | None, keep: bool) -> Generator[Path]:
    """Yield the folder to work in; take away afterwards what was put there, but the spool where it is to be kept."""
    made = wanted is None or not wanted.exists()
    work = Path(tempfile.mkdtemp(prefix="kumodr-bench-")) if wanted is None else wanted.absolute()
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in work.glob("round-*"):  # of a run that was killed
        shutil.rmtree(old)
    try:
        yield work
    finally:
        for each in work.glob("round-*"):
            shutil.rmtree(each, ignore_errors=True)
        if keep:
            say(f"the spool is kept in {work}")
        else:
            shutil.rmtree(work / "dataset", ignore_errors=True)
            if made:
                shutil.rmtree(work, ignore_errors=True)


def say(text: str) -> None:
    """Print progress, apart from the result."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
