"""Prometheus's data folder, on this host or inside a container only, and the snapshots in it."""

import os
import re
import shutil
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.runtimes.protocol import Runtime

USUAL = "/prometheus"
"""Where the official image keeps its data."""

_BLOCK = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_QUICK = 60.0


def blocks_in(root: Path) -> list[str]:
    """Return the closed blocks in a data folder: those with a meta.json. Raise OSError."""
    return sorted(name for name in os.listdir(root) if _BLOCK.fullmatch(name) and (root / name / "meta.json").is_file())


@dataclass(frozen=True)
class Here:
    """A data folder of this host. What was opened is given up, and a snapshot deleted, when the stack ends."""

    stack: ExitStack
    root: Path

    def count(self) -> int:
        """Return how many closed blocks there are. Raise OSError."""
        return len(blocks_in(self.root))

    def opened(self, snapshot: str | None) -> Path:
        """Return the folder with the blocks of a snapshot, None: of the data folder. Raise ComponentUnavailable."""
        if snapshot is None:
            return self.root
        source = self.root / "snapshots" / snapshot
        self.stack.callback(shutil.rmtree, source, ignore_errors=True)
        if not source.is_dir():
            raise errors.ComponentUnavailable(
                f"prometheus: its snapshot is not at {source}",
                remedy="correct components.prometheus.data in kumodr.yaml",
            )
        return source


@dataclass(frozen=True)
class Inside:
    """A data folder that only a container sees; `root` is its path there."""

    stack: ExitStack
    runtime: Runtime
    service: str
    root: str
    scratch: str | None

    def count(self) -> int:
        """Return how many closed blocks there are. Raise ComponentUnavailable."""
        return len(self._names(self.root))

    def opened(self, snapshot: str | None) -> Path:
        """Copy the blocks out to a scratch folder, and return it. Raise ComponentUnavailable."""
        source = f"{self.root}/snapshots/{snapshot}" if snapshot else self.root
        if snapshot:
            self.stack.callback(self._removed, source)
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="kumodr-prometheus-", dir=self.scratch))
        for name in self._names(source):
            try:
                self.runtime.copy_out(self.service, f"{source}/{name}", Path(folder) / name)
            except errors.KumodrError as error:
                raise errors.ComponentUnavailable(f"prometheus: {error.what}", remedy=error.remedy) from error
        return Path(folder)

    def _removed(self, snapshot: str) -> None:
        """Delete a snapshot. What was copied out of it is good where that fails."""
        with suppress(errors.ComponentUnavailable):
            self._ask("rm", "-rf", snapshot)

    def _names(self, folder: str) -> list[str]:
        return [name for name in self._ask("ls", folder).splitlines() if _BLOCK.fullmatch(name)]

    def _ask(self, *command: str) -> str:
        try:
            answer = self.runtime.exec(self.service, command, limit=_QUICK)
        except errors.KumodrError as error:
            raise errors.ComponentUnavailable(f"prometheus: {error.what}", remedy=error.remedy) from error
        if answer.code:
            reason = answer.err.decode(errors="replace").strip()[:200]
            raise errors.ComponentUnavailable(f"prometheus: `{command[0]}` in {self.service} failed: {reason}")
        return answer.out.decode(errors="replace")
