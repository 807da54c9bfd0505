"""What several test files need: captured data of a real KumoMTA."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from kumodr.lab.options import Options

# Where the suite runs in the background of a shell, these are ignored, and so they would be by all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def kumomta_directory() -> Path:
    """The folder with the captured data (`fixtures/`), OpenAPI file and metric names of KumoMTA."""
    return REPOSITORY / "tests" / "kumomta"


@pytest.fixture(scope="session")
def fixtures_directory(kumomta_directory: Path) -> Path:
    """The captured spools, logs and API answers."""
    return kumomta_directory / "fixtures"


@pytest.fixture
def unpacked(fixtures_directory: Path, tmp_path: Path):
    """Given a capture's name, unpack it below tmp_path and return its folder (spool/meta, spool/data, logs, nodeid)."""

    def unpack(name: str) -> Path:
        target = tmp_path / name
        target.mkdir()
        archive = fixtures_directory / f"{name}.tar.zst"
        subprocess.run(["tar", "--zstd", "--no-same-owner", "-xf", archive, "-C", target], check=True)
        return target

    return unpack


@pytest.fixture
def lab_options() -> Options:
    """How lab sites of tests are: with a real kumod where KUMODR_TEST_KUMOD names one, and only the mail server."""
    return Options(kumod=os.environ.get("KUMODR_TEST_KUMOD") or None, redis=False, prometheus=False)
