"""`kumodr protect` as a process beside a lab site."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import wait_for

from kumodr.clock import system_clock, time_of_text
from kumodr.components.registry import vetter
from kumodr.lab.processes import Process, is_running, kill, start, stop
from kumodr.plan.render import render
from kumodr.protect.figures import Figures, published
from kumodr.recover.choose import choose_state
from kumodr.recover.restore import restore
from kumodr.vault.facts import Point
from kumodr.vault.keys import generate_identity, parse_identities
from kumodr.vault.open import create_vault
from kumodr.vault.points import survey


@dataclass
class Live:
    """A directory with a plan, a vault, and `kumodr protect` running or not."""

    folder: Path
    values: Mapping[str, Any]
    process: Process | None = None
    restored: int = 0
    secret: str = ""
    started: int = 0
    problems: list[str] = field(default_factory=list[str])
    vault_at: Path | None = None

    def __post_init__(self) -> None:
        identity = generate_identity()
        self.secret = identity.secret
        self.vault_folder = self.vault_at or self.folder / "vault"
        self.vault = create_vault(str(self.vault_folder), [identity.recipient], system_clock)
        self.plan = self.folder / "kumodr.yaml"
        without = {key: value for key, value in self.values.items() if key != "protect"}
        self.plan.write_text(render(without) + f"\nprotect: {json.dumps(self.values.get('protect', {}))}\n")
        self.state = Path(self.values["state"])

    def protect(self) -> None:
        words = [sys.executable, "-m", "kumodr", "protect", "--plan", str(self.plan)]
        self.process = start(words, self.folder / "protect.log", directory=self.folder)
        self.started = time.time_ns()

    def kill(self) -> None:
        assert self.process is not None
        assert is_running(self.process), (self.folder / "protect.log").read_text()[-2000:]
        kill(self.process)

    def end(self) -> None:
        """End it whether it runs or not."""
        if self.process is not None:
            kill(self.process)

    def stop(self) -> float:
        """Stop it as systemd does; return how long it took."""
        assert self.process is not None
        begun = time.monotonic()
        stop(self.process, 30)
        return time.monotonic() - begun

    def figures(self) -> Figures:
        figures = published(self.state)
        assert figures is not None
        return figures

    def is_protected(self, since: int | None = None) -> bool:
        """Whether everything up to a time, in ns (None: now), can be recovered."""
        figures = published(self.state)
        wanted = since or self.started
        return (
            figures is not None
            and self.process is not None
            and figures.process == self.process.pid
            and figures.state == "protected"
            and time_of_text(figures.recoverable_until or "2000-01-01T00:00:00Z").timestamp() > wanted / 1e9
        )

    def wait(self) -> None:
        now = time.time_ns()
        wait_for("protection", lambda: self.is_protected(now), 30)

    def points(self) -> tuple[Point, ...]:
        return survey(self.vault, {}).points

    def brought_back(self) -> tuple[Path, float] | None:
        """Restore the newest state; return where, and of when it is; None where there is no base yet."""
        identities = parse_identities(self.secret, "test")
        found = survey(self.vault, identities.pins)
        assert found.problems == ()
        if not any(each.section("spool") for each in found.points):
            return None
        state = choose_state(self.vault, found.points, identities.pins, components=("spool", "logs"))
        vetters = {each.section.component: vetter(each.section.component, system_clock) for each in state.chosen}
        self.restored += 1
        target = self.folder / f"restored-{self.restored}"
        recovered = restore(
            self.vault, state, identities, target, vetters, clock=system_clock, progress=lambda *_: None
        )
        self.problems += map(str, (*state.problems, *recovered.problems))
        base = max(each.taken for each in found.points if each.section("spool"))
        return target, (state.stream.extent.taken if state.stream else base).timestamp()
