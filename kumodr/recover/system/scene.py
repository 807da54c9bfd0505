"""What a recovery works on: plain values that go with the run, and the openings that they lead to."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from kumodr import errors
from kumodr.plan.load import load_plan
from kumodr.plan.model import Plan, SpoolPlan
from kumodr.runtimes.opening import runtime_of, services_of
from kumodr.runtimes.protocol import Runtime
from kumodr.vault.keys import Identities, load_identities
from kumodr.vault.open import Vault, open_vault

_WORLD = "sink"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What was asked for, as it is kept with the run. Times are UTC text, durations seconds, paths absolute.

    The identity is named, never held: its file, or None where the environment has it.
    """

    plan: str
    identity: str | None = None
    at: str | None = None
    disaster: str | None = None
    uncertain: Literal["send", "hold", "drop"] = "send"
    max_age: float = 7 * 86400.0
    retry_interval: float = 1200.0
    damaged: Sequence[str] = ()
    """Components that are taken for damaged whatever is found, where data is recovered."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class Scene:
    """The site that is recovered. Everything is opened when it is asked for, in whichever session that is."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.wanted = Wanted(**parameters)

    @cached_property
    def plan(self) -> Plan:
        """The plan. Raise PlanMissing, PlanInvalid."""
        return load_plan(self.wanted.plan)

    @property
    def spool(self) -> SpoolPlan:
        """Where the spool belongs. Raise SpoolMissing where the plan names none."""
        if self.plan.components.spool is None:
            raise errors.SpoolMissing("the plan names no spool", remedy="add components.spool to the plan")
        return self.plan.components.spool

    @property
    def meta(self) -> Path:
        """Where the spool's first half belongs."""
        return Path(self.spool.meta)

    @property
    def data(self) -> Path:
        """Where the spool's second half belongs."""
        return Path(self.spool.data)

    @property
    def logs(self) -> tuple[Path, ...]:
        """The directories of delivery logs that are there."""
        named = self.plan.components.logs.directories if self.plan.components.logs else ()
        return tuple(Path(each) for each in named if Path(each).is_dir())

    def work(self, run: str) -> Path:
        """Where a run restores to: beside the spool, on its disk, so that putting it in place is a rename."""
        return self.meta.parent / f"kumodr-{run}"

    def vault(self) -> Vault:
        """Open the vault. Raise VaultMissing and its kin."""
        return open_vault(self.plan.vault)

    def identities(self) -> Identities:
        """Load what opens the vault. Raise KeyMissing, WrongKey."""
        return load_identities(self.wanted.identity, os.environ)

    def runtime(self, say: Say) -> Runtime | None:
        """Return how the site's services run, None where a disaster took what says so and it can be laid out again."""
        runtime = self.plan.runtime
        if runtime.kind == "compose" and not Path(runtime.directory or ".").is_dir():
            return None
        try:
            return runtime_of(self.plan, say=say)
        except errors.LabMissing:
            return None

    def services(self, runtime: Runtime) -> tuple[str, ...]:
        """Return the services in the order in which they start, the mail server last.

        The sink of a lab is none: it stands for the rest of the world.
        """
        named = services_of(self.plan.runtime)
        return (*(each for each in runtime.services() if each not in named and each != _WORLD), *named)

    def world(self, runtime: Runtime) -> tuple[str, ...]:
        """Return what stands for the rest of the world where the site is a lab."""
        return tuple(each for each in runtime.services() if each == _WORLD)

    @property
    def kumod(self) -> str:
        """The service that is the mail server. Raise RuntimeUnknown where the plan does not say."""
        if self.plan.runtime.kumod is None:
            raise errors.RuntimeUnknown("the plan does not say which service is the mail server (runtime.kumod)")
        return self.plan.runtime.kumod


def survives(half: Path) -> bool:
    """Given one half of a spool, return whether anything is in it."""
    try:
        return any(True for _ in os.scandir(half))
    except OSError:
        return False
