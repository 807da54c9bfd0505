"""Bring a stored state back into an empty directory, each component proved before the whole is called restored.

A base is fetched into `<target>/.work`, the stream put on top of it there, and only then it gets its name
`<target>/<component>`. Only when every component was fetched and vetted is the marker `kumodr-restored.json` written,
last and durably. A directory without it is not a restored state: killing this at any instant leaves either no marker or
a finished restore.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.components.protocol import Verdict
from kumodr.durable import sync_directory, write_file
from kumodr.ledger.evidence import FOLDER
from kumodr.recover.choose import STREAMED, Chosen, State, StreamChoice
from kumodr.recover.evidence import write_evidence
from kumodr.recover.replay import Applied, replay
from kumodr.recover.target import MARKER
from kumodr.source import Facts, Progress
from kumodr.vault.fetch import Fetched, fetch, written_to
from kumodr.vault.keys import Identities
from kumodr.vault.open import Vault

Vetter = Callable[[Path], Verdict]
_WORK = ".work"


@dataclass(frozen=True)
class Restored:
    """One component that is back: what was fetched, what its examination said, and the time of its state."""

    chosen: Chosen
    fetched: Fetched
    verdict: Verdict
    until: datetime
    notes: tuple[str, ...] = ()

    @property
    def imperfections(self) -> tuple[str, ...]:
        """What is not as it was or needs a decision, one sentence each."""
        links = [f"link {path} leads outside and was not made" for path in self.fetched.outside_links]
        return (*self.verdict.warnings, *links, *self.notes)


@dataclass(frozen=True)
class Recovered:
    """Everything that is back, what of the stream is in it, and why it is not more of the stream, if it is not."""

    components: tuple[Restored, ...]
    stream: Applied | None = None
    problems: tuple[errors.KumodrError, ...] = ()

    @property
    def is_perfect(self) -> bool:
        """Whether nothing is to be said about it."""
        return not self.problems and not any(each.imperfections for each in self.components)


def restore(
    vault: Vault,
    state: State,
    identities: Identities,
    target: Path,
    vetters: Mapping[str, Vetter],
    *,
    clock: Clock,
    progress: Progress,
) -> Recovered:
    """Given what was chosen and an empty target, fetch and vet every component, and mark the target as restored.

    Raise ComponentDamaged where a component is not good, after everything was fetched: the files stay for a look,
    unmarked. Errors of the vault and of the disk pass through; nothing that looks complete is left.
    """
    made = not target.exists()
    with written_to(target):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = target / _WORK
    try:
        shutil.rmtree(work, ignore_errors=True)
        fetched, applied, problems = fetch_state(vault, state, identities, target, work, progress)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        if made and not any(target.iterdir()):
            target.rmdir()
        raise
    restored = [vetted(choice, fetched[choice.section.component], target, vetters, applied) for choice in state.chosen]
    bad = [f"{each.chosen.section.component}: {each.verdict.problem}" for each in restored if each.verdict.problem]
    if bad:
        raise errors.ComponentDamaged(f"restored to {target}, but not good: {'; '.join(bad)}")
    with written_to(target):
        write_proof(target, restored, applied, clock)
    return Recovered(tuple(restored), applied, problems)


def fetch_state(
    vault: Vault, state: State, identities: Identities, target: Path, work: Path, progress: Progress
) -> tuple[dict[str, Fetched], Applied | None, tuple[errors.KumodrError, ...]]:
    """Given a state, bring its components to their places below the target, with the stream on top of spool and logs.

    Where the stream breaks off in a place that no state may end at, the base is fetched again and less is applied.
    """
    fetched: dict[str, Fetched] = {}
    on_top = [each for each in state.chosen if state.stream and each.point.id == state.stream.base.id]
    under = [each for each in on_top if each.section.component in STREAMED]
    for choice in state.chosen:
        if choice not in under:
            name = choice.section.component
            fetched[name] = fetch(vault, choice.section, identities, target / name, progress)
    stream, applied = state.stream if under else None, None
    problems: tuple[errors.KumodrError, ...] = ()
    while under:
        with written_to(target):
            work.mkdir(mode=0o700)
        for choice in under:
            name = choice.section.component
            fetched[name] = fetch(vault, choice.section, identities, work / name, progress)
        applied = None
        if stream is not None:
            with written_to(target):
                applied = replay(vault, stream, identities, work, progress)
            problems = (*problems, *applied.problems)
            if not is_state(stream, applied):
                stream = shorter(stream, applied)
                shutil.rmtree(work)
                continue
        with written_to(target):
            for name in (*(choice.section.component for choice in under), FOLDER):
                if (work / name).exists():
                    (work / name).rename(target / name)
            shutil.rmtree(work)
            sync_directory(target)
        break
    return fetched, applied, tuple({str(each): each for each in problems}.values())


def is_state(stream: StreamChoice, applied: Applied) -> bool:
    """Given what was to be applied and what was, return whether it is a state that may be restored."""
    join = stream.base.stream
    return join is not None and applied.sound == applied.last and applied.last >= join.whole


def shorter(stream: StreamChoice, applied: Applied) -> StreamChoice | None:
    """Given a stream that broke off, return the part of it that ends in a state, None where only the base is one."""
    join = stream.base.stream
    if join is None or applied.sound < join.whole:
        return None
    return replace(stream, extent=replace(stream.extent, last=applied.sound))


def vetted(
    choice: Chosen, fetched: Fetched, target: Path, vetters: Mapping[str, Vetter], applied: Applied | None
) -> Restored:
    """Given a component that is in its place, examine it, and compare it with what it must be."""
    name = choice.section.component
    verdict = vetters[name](target / name) if name in vetters else Verdict(None)
    expected = dict(choice.section.facts)
    until, notes = choice.point.taken, ()
    if applied is not None and applied.head is not None and name in STREAMED and name in applied.on:
        until = applied.head.taken
        if name == "spool":
            expected |= applied.counts
        else:
            notes = applied.notes
            for fact, more in (("segments", applied.new_logs), ("bytes", applied.grown_logs)):
                if isinstance(expected.get(fact), int):
                    expected[fact] += more
    return Restored(choice, fetched, compared(expected, verdict), until, notes)


def compared(expected: Facts, verdict: Verdict) -> Verdict:
    """Given the facts that must hold and the examination of the copy, return the verdict; a count that differs is the
    problem.
    """
    if verdict.problem is not None:
        return verdict
    for name, value in verdict.facts.items():
        wanted = expected.get(name)
        if isinstance(value, int) and isinstance(wanted, int) and wanted != value:
            return Verdict(f"{name} is {value}, but must be {wanted}", verdict.facts, verdict.warnings)
    return verdict


def write_proof(target: Path, restored: Sequence[Restored], applied: Applied | None, clock: Clock) -> None:
    """Given a target whose components are good, write the evidence beside the spool, and the marker last."""
    until = {each.chosen.section.component: each for each in restored}
    if "spool" in until:
        spool, logs = until["spool"], until.get("logs")
        document = applied.document if applied else None
        write_evidence(target, spool.chosen.point.id, spool.until, logs.until if logs else None, document)
    mark(target, restored, applied, clock)


def mark(target: Path, restored: Sequence[Restored], applied: Applied | None, clock: Clock) -> None:
    """Given a target whose components are good, write the marker that says so."""
    document = {
        "restored": text_of_time(clock()),
        "stream": applied.document if applied else None,
        "components": {
            each.chosen.section.component: {
                "point": each.chosen.point.id,
                "taken": text_of_time(each.chosen.point.taken),
                "until": text_of_time(each.until),
                "files": each.fetched.files,
                "size": each.fetched.size,
                "facts": dict(each.verdict.facts),
                "imperfections": list(each.imperfections),
            }
            for each in restored
        },
    }
    write_file(target / MARKER, json.dumps(document, indent=2).encode() + b"\n")
