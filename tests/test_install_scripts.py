"""`kumodr scripts install`: the plan's tool tree, run as the written plan runs it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kumodr.cli.main import main
from kumodr.lab.options import Options
from kumodr.lab.site import Site, create

TREE = {
    "backup/backup-config.sh", "backup/backup-data.sh", "backup/verify-backup.sh", "recovery/restore-from-backup.sh",
    "recovery/health-check.sh", "recovery/email-test.sh", "testing/test-backup-restore.sh",
}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    real = os.environ.get("KUMODR_TEST_KUMOD") or None
    made = create(tmp_path / "a lab", Options(kumod=real, redis=False, prometheus=False))
    made.start()
    monkeypatch.chdir(made.directory)
    monkeypatch.setenv("KUMODR_IDENTITY_FILE", str(tmp_path / "identity.txt"))
    assert main(["vault", "init", "--identity-out", str(tmp_path / "identity.txt")]) == 0
    yield made
    made.kill()


def test_the_written_procedures_run_from_anywhere(site: Site, tmp_path: Path) -> None:
    tree = tmp_path / "the scripts"
    assert main(["scripts", "install", str(tree), "--dry-run"]) == 0
    assert not tree.exists()
    assert main(["scripts", "install", str(tree)]) == 0
    assert {str(path.relative_to(tree)) for path in tree.rglob("*.sh")} == TREE

    def run(name: str, *words: str) -> int:
        return subprocess.run([str(tree / name), *words], cwd="/", capture_output=True, text=True).returncode

    assert run("recovery/email-test.sh", "someone@there.test") == 0
    assert run("recovery/email-test.sh") == 2
    assert run("backup/backup-config.sh") == 0
    assert run("backup/backup-data.sh") == 0
    assert run("backup/verify-backup.sh") == 0
    assert run("recovery/restore-from-backup.sh", "--test") == 0
    assert run("testing/test-backup-restore.sh") == 0
    assert run("recovery/health-check.sh") == 0
    site.stop(["kumod"])
    assert run("recovery/health-check.sh") == 1


def test_a_script_that_somebody_changed_is_not_written_over(site: Site, tmp_path: Path) -> None:
    assert main(["scripts", "install", str(tmp_path / "tree")]) == 0
    script = tmp_path / "tree" / "backup" / "verify-backup.sh"
    script.write_text(script.read_text() + "echo mine\n")
    assert main(["scripts", "install", str(tmp_path / "tree")]) == 5
    assert script.read_text().endswith("echo mine\n")
