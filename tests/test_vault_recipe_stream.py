"""The recipe for the stream in docs/vault-format.md, run as it stands there, gives the spool that kumodr restores."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from streamed_site import Site
from streams import base, brought_back, content

from kumodr.vault.facts import StreamJoin

PAGE = Path(__file__).parent.parent / "docs" / "vault-format.md"


@pytest.mark.parametrize("rolled", [False, True])
def test_the_recipe_applies_the_stream(rolled: bool, tmp_path: Path) -> None:
    site = Site(tmp_path, "localdisk", 6)
    base(site.made, site.folder, StreamJoin(1, 1, 1))
    segments = list(site.stream.names)
    if rolled:
        segments[1:4] = [site.stream.roll(2, 4).name]
    (tmp_path / "key.txt").write_text(site.made.identity.secret + "\n")
    state = tmp_path / "state"
    for half, entries in zip(("meta", "data"), site.states[0], strict=True):
        (state / half).mkdir(parents=True)
        for key, value in entries.items():
            (state / half / key.hex()).write_bytes(value)
    shutil.copytree(site.folder / "logs", state / "logs" / "1-logs")
    (recipe,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "apply.py").write_text(program)
    environment = {"PATH": os.environ["PATH"], "SEGMENTS": " ".join(segments)}
    environment |= {"VAULT": str(tmp_path / "vault"), "KEY": str(tmp_path / "key.txt"), "STATE": str(state)}
    done = subprocess.run(["bash", "-c", recipe], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"previous"') == len(segments)
    brought_back(site.made, tmp_path / "back")
    meta, data = content(tmp_path / "back" / "spool")
    for half, entries in (("meta", meta), ("data", data)):
        assert {path.name: path.read_bytes() for path in (state / half).iterdir()} == {
            key.hex(): value for key, value in entries.items()
        }
    assert (state / "logs" / "1-logs" / "open").read_bytes() == site.logs[6]
