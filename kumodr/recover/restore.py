"""Bring stored components back into an empty directory, each proved before the whole is called restored.

Everything is fetched into `<target>/<component>`; only when every component was fetched and vetted is the marker
`kumodr-restored.json` written, last and durably. A directory without it is not a restored state: killing this at
any instant leaves either no marker or a finished restore.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.components.protocol import Verdict
from kumodr.durable import write_file
from kumodr.recover.choose import Chosen
from kumodr.recover.target import MARKER
from kumodr.source import Progress
from kumodr.vault.fetch import Fetched, fetch, written_to
from kumodr.vault.keys import Identities
from kumodr.vault.open import Vault

Vetter = Callable[[Path], Verdict]


@dataclass(frozen=True)
class Restored:
    """One component that is back: what was fetched, and what its examination said."""

    chosen: Chosen
    fetched: Fetched
    verdict: Verdict

    @property
    def imperfections(self) -> tuple[str, ...]:
        """What is not as it was or needs a decision, one sentence each."""
        links = [f"link {path} leads outside and was not made" for path in self.fetched.outside_links]
        return (*self.verdict.warnings, *links)


def restore(
    vault: Vault,
    chosen: Sequence[Chosen],
    identities: Identities,
    target: Path,
    vetters: Mapping[str, Vetter],
    *,
    clock: Clock,
    progress: Progress,
) -> tuple[Restored, ...]:
    """Given what was chosen and an empty target, fetch and vet every component, and mark the target as restored.

    Raise ComponentDamaged where a component is not good, after everything was fetched: the files stay for a look,
    unmarked. Errors of the vault and of the disk pass through; nothing that looks complete is left.
    """
    made = not target.exists()
    with written_to(target):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
    restored: list[Restored] = []
    try:
        for choice in chosen:
            name = choice.section.component
            fetched = fetch(vault, choice.section, identities, target / name, progress)
            verdict = vetters[name](target / name) if name in vetters else Verdict(None)
            restored.append(Restored(choice, fetched, compared(choice, verdict)))
    except BaseException:
        if made and not any(target.iterdir()):
            target.rmdir()
        raise
    bad = [f"{each.chosen.section.component}: {each.verdict.problem}" for each in restored if each.verdict.problem]
    if bad:
        raise errors.ComponentDamaged(f"restored to {target}, but not good: {'; '.join(bad)}")
    with written_to(target):
        mark(target, restored, clock)
    return tuple(restored)


def compared(choice: Chosen, verdict: Verdict) -> Verdict:
    """Given a section and the examination of its copy, return the verdict; a count that differs is the problem."""
    if verdict.problem is not None:
        return verdict
    stored = choice.section.facts
    for name, value in verdict.facts.items():
        if isinstance(value, int) and isinstance(stored.get(name), int) and stored[name] != value:
            return Verdict(f"{name} is {value}, but {stored[name]} when it was stored", verdict.facts, verdict.warnings)
    return verdict


def mark(target: Path, restored: Sequence[Restored], clock: Clock) -> None:
    """Given a target whose components are good, write the marker that says so."""
    document = {
        "restored": text_of_time(clock()),
        "components": {
            each.chosen.section.component: {
                "point": each.chosen.point.id,
                "taken": text_of_time(each.chosen.point.taken),
                "files": each.fetched.files,
                "size": each.fetched.size,
                "facts": dict(each.verdict.facts),
                "imperfections": list(each.imperfections),
            }
            for each in restored
        },
    }
    write_file(target / MARKER, json.dumps(document, indent=2).encode() + b"\n")
