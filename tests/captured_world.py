"""A captured site with a plan, a vault and a key, driven by the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

PLAN = """version: 1
site: primary
vault: {{url: {vault}}}
state: {folder}/state
components:
  spool: {{meta: {site}/spool/meta, data: {site}/spool/data}}
  logs: {{directories: [{site}/logs]}}
  config: {{paths: [{site}/nodeid], environment: [KUMO_TEST*]}}
"""


class World:
    """A captured site with a plan, a vault and a key."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        self.site = site
        self.vault = folder / "vaults" / "one"
        self.key = folder / "keys" / "identity.txt"
        for name in ("vaults", "keys", "plan", "work"):
            (folder / name).mkdir()
        self.plan = folder / "plan" / "kumodr.yaml"
        self.plan.write_text(PLAN.format(vault=self.vault, folder=folder, site=site))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command, with a secret in it."""
        return {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "XDG_STATE_HOME": str(self.folder / "xdg"),
                "KUMO_TEST_SECRET": "hush-hush"}  # fmt: skip

    def command(self, *words: str) -> list[str]:
        """The command line of a verb."""
        return [sys.executable, "-m", "kumodr", *words, "--plan", str(self.plan)]

    def run(self, *words: str, expect: int = 0) -> str:
        """Run a verb; return its standard output and error. An error is one sentence, never a trace."""
        done = subprocess.run(
            self.command(*words), cwd=self.folder / "work", env=self.environment, capture_output=True, text=True
        )
        text = done.stdout + done.stderr
        assert done.returncode == expect, text
        assert "Traceback" not in text
        assert "hush-hush" not in text
        assert "AGE-SECRET-KEY" not in text
        if expect not in (0, 3) and not (words[0] == "verify" and expect == 1):
            sentences = [line for line in done.stderr.splitlines() if line.startswith("kumodr: ")]
            assert len(sentences) == 1, done.stderr
            assert sentences[0].endswith(".")
        return text

    def restore(self, target: str, *words: str, expect: int = 0) -> str:
        """Run `kumodr restore` with the key."""
        return self.run(
            "restore", "--to", str(self.folder / target), "--identity", str(self.key), *words, expect=expect
        )

    def points(self) -> list[dict]:
        """The points, by the command line."""
        done = subprocess.run(
            [*self.command("points"), "--json"], env=self.environment, capture_output=True, text=True, check=False
        )
        return json.loads(done.stdout).get("points", [])
