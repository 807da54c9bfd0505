"""What the images of the lab and of kumodr are made of, and what is said where they cannot be made."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def locked(name: str) -> dict[str, str]:
    """Return each package's whole entry: version, marker, hashes."""
    text = (REPOSITORY / name).read_text()
    return {found[1]: found[0] for found in re.finditer(r"^([\w.-]+)==.*(?:\n    --hash.*)*", text, re.MULTILINE)}


def test_the_image_holds_the_locked_versions_of_everything_it_needs() -> None:
    image, whole = locked("requirements-image.lock"), locked("requirements.lock")
    assert {name for name in image if image[name] != whole.get(name)} == set()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    names = {re.split(r"[^\w.-]", each)[0].lower() for each in wanted}
    assert names - image.keys() == set()


@pytest.mark.parametrize(
    ("environment", "code", "error"),
    [({"PATH": "/nonexistent"}, 2, "DockerAbsent"), ({"DOCKER_HOST": "unix:///nonexistent"}, 1, "DockerStopped")],
)
def test_where_docker_is_not_it_is_said_and_nothing_is_left(
    environment: dict[str, str], code: int, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = ["lab", "up", str(tmp_path / "boxes"), "--runtime", "compose", "--json"]
    done = subprocess.run([sys.executable, "-m", "kumodr", *words], cwd=tmp_path, capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert (done.returncode, document["error"]) == (code, error)
    assert not (tmp_path / "boxes").exists()


def test_options_of_the_other_runtime_are_wrong_usage(tmp_path: Path) -> None:
    for words in (["--runtime", "compose", "--kumod", "/bin/true"], ["--bare"], ["--kumod-image", "kumomta"]):
        command = [sys.executable, "-m", "kumodr", "lab", "up", str(tmp_path / "lab"), *words, "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, json.loads(done.stdout)["error"]) == (2, "UsageWrong"), words
        assert not (tmp_path / "lab").exists()
