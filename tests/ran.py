"""A site with a plan and a vault, whose runbooks are run by the command as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kumodr.clock import system_clock
from kumodr.vault.keys import generate_identity
from kumodr.vault.open import create_vault

KUMODR = [sys.executable, "-m", "kumodr"]


class RunSite:
    """A folder with kumodr.yaml, vault and key; nothing of kumodr's own state is there yet."""

    def __init__(self, folder: Path, *, name: str = "site", vault: Path | None = None, runbooks: str = "") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.vault = vault or folder / "vault"
        self.key = folder / "identity.txt"
        if vault is None:
            identity = generate_identity()
            self.key.write_text(identity.secret + "\n")
            create_vault(str(self.vault), [identity.recipient], system_clock)
        (self.folder / "kumodr.yaml").write_text(
            f"version: 1\nsite: primary\nvault: {{url: {self.vault}}}\nstate: state\n"
            f"components: {{config: {{paths: [kumodr.yaml]}}}}\n{runbooks}"
        )
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "c"), "XDG_STATE_HOME": str(folder / "s")}

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write(self, *steps: dict[str, Any], name: str = "maintenance") -> str:
        """Write a runbook of these steps; return its file's name."""
        document = {"version": 1, "name": name, "steps": list(steps)}
        (self.folder / f"{name}.yaml").write_text(json.dumps(document))
        return f"{name}.yaml"

    def run(self, *words: str, code: int | None = None) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*KUMODR, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    def document(self, *words: str, code: int | None = None) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)

    def popen(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*KUMODR, *words], cwd=self.folder, env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().split() if file.exists() else []


def says(word: str, file: str = "log") -> list[str]:
    """A command that adds a line to a file, so that it is seen how often it ran."""
    return [sys.executable, "-c", f"open({file!r}, 'a').write({word + chr(10)!r})"]
