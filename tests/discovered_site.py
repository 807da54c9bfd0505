"""A machine for tests of `kumodr init` and `check`: its project, its Docker, its systemctl, and the verbs run on it."""

import contextlib
import io
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from kumodr.cli.main import main

POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  for _, name in ipairs { 'data', 'meta' } do
    kumo.define_spool { name = name, path = '/var/spool/kumomta/' .. name, kind = 'RocksDB' }
  end
  kumo.configure_local_logs {
    log_dir = '/var/log/kumomta', max_segment_duration = '10s',
    per_record = { Bounce = { log_dir = '/bounces' } },
  }
  kumo.start_http_listener { listen = '0.0.0.0:8000' }
end)
"""


class Machine:
    """A folder with a project, and programs of that name in front of the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.programs = folder, folder / "mail", folder / "programs"
        for each in (self.project, self.programs, folder / "units"):
            each.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "DOCKER_"))},
            "PATH": f"{self.programs}:{Path(sys.executable).parent}",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "log"),
        }
        self._program("systemctl", "fake_systemctl.py", "units", "systemctl")

    def docker(self, **world: Any) -> None:
        """Have a Docker that answers so; see fake_docker.py."""
        self._program("docker", "fake_docker.py", "")
        (self.folder / "world.json").write_text(json.dumps(world))

    def unit(self, name: str, **shown: Any) -> None:
        """Have systemd know a unit with these properties; of a list it prints a line each, as of EnvironmentFiles."""
        pairs = [(key, value if isinstance(value, list) else [value]) for key, value in shown.items()]
        lines = [f"{key}={each}" for key, values in pairs for each in values]
        unit = {"command": ["true"], "environment": {}, "files": lines, "pid": os.getpid()}
        (self.folder / "units" / f"{name}.json").write_text(json.dumps(unit))

    def spool(self, place: Path) -> None:
        """Have an empty RocksDB spool at a place."""
        for half in ("meta", "data"):
            (place / half).mkdir(parents=True)
            (place / half / "CURRENT").write_text("MANIFEST-000001\n")
            (place / half).chmod(0o2770)
        place.chmod(0o2770)

    def run(self, *words: str, expect: int, json_wanted: bool = True) -> Any:
        """Run a verb in the project's folder; return its document, or without `json_wanted` what it printed."""
        out = io.StringIO()
        with (
            contextlib.chdir(self.project),
            mock.patch.dict(os.environ, self.environment, clear=True),
            contextlib.redirect_stdout(out),
        ):
            code = main([*words, *(["--json"] if json_wanted else [])])
        assert code == expect, out.getvalue()
        return json.loads(out.getvalue()) if json_wanted else out.getvalue()

    def plan(self) -> Any:
        """Return the plan that was written, as it is understood."""
        return self.run("plan", "show", expect=0)

    def _program(self, name: str, script: str, *words: str) -> None:
        command = [
            sys.executable,
            "-ISs",
            str(Path(__file__).with_name(script)),
            str(self.folder / words[0]),
            *words[1:],
        ]
        (self.programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (self.programs / name).chmod(0o755)


def risks(document: Any) -> str:
    """Given what `init` said, return its risks as one text."""
    return "\n".join(f"{each['text']} → {each['remedy']}" for each in document["risks"])
