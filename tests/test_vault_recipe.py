"""The recipe in docs/vault-format.md, run as it stands there, brings a point back with stock tools alone."""

import os
import random
import re
import subprocess
from pathlib import Path

from vaults import bench, content_of

PAGE = Path(__file__).parent.parent / "docs" / "vault-format.md"


def test_the_recipe_restores_every_byte(tmp_path: Path) -> None:
    chance = random.Random(7)
    source = tmp_path / "source"
    (source / "a folder" / "deep").mkdir(parents=True)
    (source / "small").write_bytes(b"few bytes")
    (source / "empty").write_bytes(b"")
    (source / "a folder" / "größer").write_bytes(chance.randbytes(3_000_000))
    (source / "a folder" / "deep" / ("long" * 40)).write_bytes(b"text " * 2_000_000)
    (source / "a folder" / "exact").write_bytes(chance.randbytes(8 << 20))
    for number in range(200):
        (source / f"file-{number}").write_bytes(chance.randbytes(chance.randrange(5000)))
    os.symlink("small", source / "link")
    made = bench(tmp_path)
    made.backup_tree(source)
    made.backup_tree(source)
    (tmp_path / "key.txt").write_text(made.identity.secret + "\n")
    target = tmp_path / "target"
    target.mkdir()
    (recipe,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    words = {"VAULT": tmp_path / "vault", "KEY": tmp_path / "key.txt", "TARGET": target, "COMPONENT": "config"}
    environment = {"PATH": os.environ["PATH"], "POINT": "points/primary/00000002.json"}
    environment |= {name: str(value) for name, value in words.items()}
    done = subprocess.run(["bash", "-c", recipe], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content_of(target) == content_of(source)
    assert (target / "small").stat().st_mtime == int((source / "small").stat().st_mtime)
