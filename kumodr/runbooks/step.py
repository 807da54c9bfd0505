"""What a runbook is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kumodr.clock import Clock
from kumodr.runtimes.commands import Runner

OnFailure = Literal["retry", "ask", "stop", "undo"]


@dataclass(frozen=True)
class Context:
    """What a step may use: everything that reaches outside is in here, and what earlier steps found.

    `facts` holds, by name, what the outcomes of earlier steps said. `left` tells the seconds that this part of the
    step may still take; whatever waits, waits no longer. `progress` shows how far long work is; `say` adds a line.
    """

    run: str
    facts: Mapping[str, Any]
    clock: Clock
    runner: Runner
    left: Callable[[], float]
    pause: Callable[[float], None]
    say: Callable[[str], None]
    progress: Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What came of an act or a proof: a sentence, facts for later steps (plain JSON values), and what is imperfect."""

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """What a step's parts do, for people: `check`, `act` and `proof` in words, and the commands to do it by hand."""

    act: str
    check: str = ""
    proof: str = ""
    by_hand: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One part of a runbook.

    `check` returns why nothing is to be done any more (with the facts that the act would give), or None; `act` does it;
    `proof` returns how it is known that it is done, and raises where it is not. Any of them raises a named error.
    `budget` is how many seconds the step is expected to take, `limit` after how many each part of it is taken for
    hanging and is broken off.

    A command may be killed after an act and before its record. Then the check is asked again, and where it does not
    say "already so", the act is done again: so an act is either `repeatable` (twice is as good as once), or its check
    recognises what it did. Where a step promises neither, the engine notes durably that the act begins, and where it
    finds only that note, asks a person.

    `asks` is a question that must be answered with yes before the act; `preview` says for a dry run what would be done.
    The act of a step that only `reads` is done in a dry run too, so that later previews have its facts.
    """

    name: str
    purpose: str
    act: Callable[[Context], Outcome]
    words: Words
    check: Callable[[Context], Outcome | None] | None = None
    proof: Callable[[Context], Outcome] | None = None
    preview: Callable[[Context], str] | None = None
    undo: Callable[[Context], Outcome] | None = None
    asks: Callable[[Context], str] | None = None
    budget: float = 60.0
    limit: float | None = None
    on_failure: OnFailure = "stop"
    attempts: int = 3
    repeatable: bool = True
    reads: bool = False

    @property
    def longest(self) -> float:
        """After how many seconds a part of the step is taken for hanging."""
        return self.limit if self.limit is not None else 10 * self.budget


@dataclass(frozen=True)
class Runbook:
    """A procedure. `objective` names the objective of the plan that its whole time is measured against, if any."""

    name: str
    title: str
    steps: tuple[Step, ...]
    objective: str | None = None

    def names(self) -> list[str]:
        """Return the names of its steps, in order."""
        return [step.name for step in self.steps]


@dataclass(frozen=True)
class Request:
    """What a run was asked to do, kept with the run so that it can go on without the one who asked.

    `parameters` are plain JSON values from which `registry.runbook_of` makes the same runbook again; `steps` are the
    names that it had when the run began. `start_at` is the first step that is done.
    """

    run: str
    site: str
    runbook: str
    parameters: Mapping[str, Any]
    steps: Sequence[str]
    started: str
    by: str
    start_at: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**self.__dict__, "parameters": dict(self.parameters), "steps": list(self.steps)}
