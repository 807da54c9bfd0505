"""The locks hold what pyproject.toml asks for, the same versions in both, with hashes, and name no address."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9,_-]+\])?==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / name).read_text()))


def wanted(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    return {re.split(r"[\[<>=]", each)[0] for each in words}


def test_both_locks_hold_what_is_asked_for() -> None:
    everything, image = pins("requirements.lock"), pins("requirements-image.lock")
    assert wanted("lab", "dev") <= everything.keys()
    assert wanted("lab") <= image.keys()
    assert image.items() <= everything.items(), "script/lock makes both"


def test_the_locks_have_hashes_and_no_address() -> None:
    for name in ("requirements.lock", "requirements-image.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert text.count("--hash=sha256:") >= len(pins(name))
