"""What several test files need: captured data of a real KumoMTA."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_directory() -> Path:
    """The folder with the captured data and specifications of KumoMTA."""
    named = os.environ.get("KUMODR_SHARED")
    return Path(named) if named else REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def fixtures_directory(shared_directory: Path) -> Path:
    """The captured spools, logs and API answers."""
    folder = shared_directory / "kumomta" / "fixtures"
    assert folder.is_dir(), f"captured data not found at {folder}: set KUMODR_SHARED"
    return folder


@pytest.fixture
def unpacked(fixtures_directory: Path, tmp_path: Path):
    """Given a capture's name, unpack it below tmp_path and return its folder (spool/meta, spool/data, logs, nodeid)."""

    def unpack(name: str) -> Path:
        target = tmp_path / name
        target.mkdir()
        archive = fixtures_directory / f"{name}.tar.zst"
        subprocess.run(
            ["tar", "--zstd", "--no-same-owner", "-xf", str(archive), "-C", str(target)], check=True, capture_output=True
        )
        return target

    return unpack
