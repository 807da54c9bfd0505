"""What every component can do. A new component is one new file here and one line in `registry.py`."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kumodr.source import Capture, Facts


@dataclass(frozen=True)
class Finding:
    """One thing an operator should know: `level` is "good", "warning" or "bad"; `remedy` says what to do."""

    level: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Verdict:
    """What an examination of a restored copy found. `problem` is the reason why it is not good, or None."""

    problem: str | None
    facts: Facts = field(default_factory=dict[str, object])
    warnings: tuple[str, ...] = ()


class Component(Protocol):
    """One kind of thing that is protected. Instances are made from the plan and hold no open resources."""

    @property
    def name(self) -> str:
        """The component's word in design §1, which is also its folder in a restored directory."""
        ...

    def capture(self) -> AbstractContextManager[Capture]:
        """Hold the live state still, read-only, and give its files. Raise a named error where it cannot be had."""
        ...

    def vet(self, restored: Path) -> Verdict:
        """Given the component's folder in a restored directory, examine it as its own program would, unchanged."""
        ...

    def health(self) -> tuple[Finding, ...]:
        """Look at the live component, read-only, and say what is wrong or risky with it."""
        ...
