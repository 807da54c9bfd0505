"""The documents of `--json` have the fields that docs/json.md promises, and no others."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import wait_for

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "json.md"
FREE = ("components", "processes", "nodes", "failures", "rebase_counts", "others", "imperfections")
"""Fields whose own fields are names of things."""


def promised() -> dict[str, dict[str, bool]]:
    """Return the fields by command; whether each is in every answer."""
    found: dict[str, dict[str, bool]] = {}
    for section in re.split("^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE)
        for name in title.split(", "):
            found[name] = {field: "*maybe*" not in meaning for field, meaning in rows}
    return found


def fields(value: Any, place: str = "") -> Iterator[str]:
    """Yield the place of everything in a document; of an empty list or object no parts are known."""
    if isinstance(value, dict):
        free = place.rpartition(".")[2] in FREE
        if not value:
            yield f"{place}.*" if free else f"{place}.**"
        for name, each in value.items():
            yield from fields(each, f"{place}.{'*' if free else name}".lstrip("."))
    elif isinstance(value, list):
        yield f"{place}[]"
        for each in value:
            yield from fields(each, f"{place}[]")
    else:
        yield place


def covers(field: str, place: str) -> bool:
    """Whether a field of the document stands for what was found at a place."""
    if field.endswith("**"):
        return place.startswith(field[:-2].rstrip(".")) if field != "**" else True
    return place == field or (place.endswith("[]") and field.startswith(place))


class Lab:
    """A lab site whose commands' documents are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lab = folder / "lab"
        self.key = str(folder / "identity.txt")
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "c"), "XDG_STATE_HOME": str(folder / "s")}
        self.seen: dict[str, list[Any]] = {}

    def run(self, title: str, *words: str, good: tuple[int, ...] = (0, 3), module: str = "kumodr") -> Any:
        """Run a command with --json; keep its document under a title of docs/json.md."""
        done = subprocess.run(
            [sys.executable, "-m", module, "--json", *words] if module != "kumodr"
            else [sys.executable, "-m", "kumodr", *words, "--json"],
            cwd=self.lab if self.lab.exists() else self.folder, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode in good, done.stdout + done.stderr
        document = json.loads(done.stdout)
        self.seen.setdefault(title, []).append(document)
        return document

    def images(self) -> str:
        """Make a folder with a restored image, and put a docker that has none on the path; return the folder."""
        config, programs = json.dumps({"rootfs": {"diff_ids": []}}).encode(), self.folder / "programs"
        digest = hashlib.sha256(config).hexdigest()
        (self.folder / "images" / "configs").mkdir(parents=True)
        (self.folder / "images" / "configs" / f"{digest}.json").write_bytes(config)
        archives = [{"id": f"sha256:{digest}", "tags": ["a:1"], "config": digest, "layers": []}]
        services = [{"service": "a", "name": f"a@sha256:{digest}", "id": f"sha256:{digest}"}]
        (self.folder / "images" / "images.json").write_text(json.dumps({"services": services, "archives": archives}))
        programs.mkdir()
        (programs / "docker").write_text("#!/bin/sh\necho Error: No such image >&2\nexit 1\n")
        (programs / "docker").chmod(0o755)
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        return str(self.folder)

    def protect(self) -> None:
        """Run the loop until it protects, and stop it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "kumodr", "protect", "--json"],
            cwd=self.lab, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        figures = self.lab / "site" / "kumodr-state"
        try:
            wait_for("protection", lambda: any(b'"protected"' in path.read_bytes() for path in figures.glob("*.json")))
        finally:
            process.send_signal(signal.SIGTERM)
            out, _text = process.communicate(timeout=30)
        self.seen["kumodr protect"] = [json.loads(out)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    real = ["--kumod", os.environ["KUMODR_TEST_KUMOD"]] if os.environ.get("KUMODR_TEST_KUMOD") else []
    made.run("kumodr lab up", "lab", "up", str(made.lab), *real)
    try:
        yield made
    finally:
        made.run("kumodr lab down", "lab", "down", str(made.lab))


def test_every_document_has_the_fields_that_are_promised(lab: Lab, tmp_path: Path) -> None:
    key, back = ("--identity", lab.key), str(tmp_path / "back")
    spool = ("--spool", f"{back}/spool")
    load = ("--rate", "0", "--count", "60", "--deferred", "0.5")
    lab.run("kumodr lab load", "lab", "load", ".", *load)
    lab.run("kumodr init", "init", "--lab", ".", "--out", str(tmp_path / "plan.yaml"))
    lab.run("kumodr vault init", "vault", "init", "--identity-out", lab.key)
    lab.run("kumodr check", "check")
    lab.run("kumodr health", "health")
    asked = "kumodr.cli.kumomta_cli"
    for subject, what in (
        ("queue", "depth"),
        ("queue", "status"),
        ("performance", "metrics"),
        ("performance", "analyze"),
    ):
        lab.run(f"kumomta-cli {subject} {what}", subject, what, module=asked)
    lab.run("kumomta-cli spool optimize", "spool", "optimize", module=asked)
    lab.run("kumodr mail-test", "mail-test", "--to", "someone@there.test")
    lab.run("kumodr backup", "backup")
    lab.run("kumodr protect --dry-run", "protect", "--dry-run")
    lab.protect()
    installed_units(lab, tmp_path / "units")
    lab.run("kumodr points", "points")
    for words in ((), ("--deep", *key), ("--restore", *key)):
        lab.run("kumodr verify", "verify", *words)
    lab.run("kumodr points", "points")
    lab.run("kumodr status", "status")
    lab.run("kumodr vault info", "vault", "info")
    lab.run("kumodr vault keys", "vault", "keys")
    lab.run("kumodr prune", "prune", "--apply")
    lab.run("kumodr restore --dry-run", "restore", "--to", back, *key, "--dry-run")
    lab.run("kumodr restore", "restore", "--to", back, *key)
    lab.run("When a command fails", "restore", "--to", back, *key, good=(5,))
    lab.run("kumodr standby --once", "standby", "--to", f"{back}-standby", "--once", *key)
    lab.run("kumodr standby --promote", "standby", "--to", f"{back}-standby", "--promote", *key)
    for what in ("show", "schema", "sample"):
        lab.run(f"kumodr plan {what}", "plan", what)
    lab.run("kumodr spool status", "spool", "status")
    listed = lab.run("kumodr spool list", "spool", "list", *spool)
    lab.run("kumodr spool show", "spool", "show", listed["messages"][0]["id"], *spool)
    lab.run("kumodr spool diff", "spool", "diff", f"{back}/spool", "latest", *key)
    lab.run("kumodr spool vet", "spool", "vet", *spool)
    lab.run("kumodr spool vet", "spool", "vet", *spool, "--apply", "--max-age", "1s", "--at", "2040-01-01 00:00:00")
    lab.run("kumodr spool quarantine list", "spool", "quarantine", "list", *spool)
    lab.run("kumodr spool quarantine put-back", "spool", "quarantine", "put-back", "--all", *spool)
    lab.run("kumodr spool export", "spool", "export", "--to", f"{back}-mail", *spool)
    lab.run("kumodr spool reconcile", "spool", "reconcile", *spool)
    lab.run("kumodr spool lost", "spool", "lost", *spool)
    lab.run("kumodr spool diagnose", "spool", "diagnose", *spool)
    lab.run("kumodr spool salvage", "spool", "salvage", f"{back}/spool", "--to", f"{back}-salvaged")
    (lab.lab / "own.yaml").write_text(
        "version: 1\nname: own\nsteps: [{name: sure, ask: Sure?}, {name: wrong, kumodr: [lab, status, nowhere]}]\n"
    )
    lab.run("kumodr runs start --dry-run", "runs", "start", "own.yaml", "--dry-run")
    paused = lab.run("kumodr runs start", "runs", "start", "own.yaml", "--yes", "--pause-before", "sure", good=(3,))
    lab.run("kumodr runs abort", "runs", "abort", paused["run"])
    lab.run("When a command fails", "runs", "start", "own.yaml", "--yes", good=(1,))
    lab.run("kumodr runs resume", "runs", "resume", "--skip", good=(3,))
    lab.run("kumodr runs list", "runs", "list")
    lab.run("kumodr runs list", "runs", "list", "--vault", str(lab.lab / "vault"))
    lab.run("kumodr runs show", "runs", "show")
    for what in ("schema", "sample"):
        lab.run(f"kumodr runs {what}", "runs", what)
    lab.run("kumodr lab status", "lab", "status", ".")
    lab.run("kumodr lab break", "lab", "break", "kill", ".")
    lab.run("kumodr recover data", "recover", "data", *key, "--damaged", "spool", "--yes")
    lab.run("kumodr recover data --dry-run", "recover", "data", *key, "--dry-run")
    lab.run("kumodr recover system --dry-run", "recover", "system", *key, "--dry-run")
    lab.run("kumodr recover system", "recover", "system", *key, "--yes")
    lab.run("kumodr vault copy", "vault", "copy", f"{back}-copy")
    lab.run("kumodr vault keys rotate", "vault", "keys", "rotate")
    lab.run("kumodr images load", "images", "load", lab.images())
    lab.run("kumodr place", "place", back, "--component", "config")
    lab.run("kumodr lab down", "lab", "down", ".")
    fields_of = promised()
    assert lab.seen.keys() <= fields_of.keys()
    assert {name for name in fields_of if name not in lab.seen} <= {"Facts of components"}
    for name, documents in lab.seen.items():
        found = {place for each in documents for place in fields(each)}
        assert {place for place in found if not any(covers(field, place) for field in fields_of[name])} == set(), name
        missing = {
            field for field, always in fields_of[name].items()
            if always and not any(covers(field, place) or place.startswith(field) for place in found)
        }  # fmt: skip
        assert missing == set(), name


def installed_units(lab: Lab, folder: Path) -> None:
    """Let units be printed, put there by hand, and their removal be printed: no systemd is asked."""
    folder.mkdir()
    said = lab.run("kumodr install units", "install", "units", "--to", str(folder))
    for each in said["files"]:
        Path(each["path"]).write_text(each["text"])
    lab.run("kumodr install remove", "install", "remove", "--to", str(folder))
    lab.run("kumodr scripts install", "scripts", "install", str(folder / "scripts"))


def test_a_plan_that_is_wrong_lists_every_mistake(tmp_path: Path) -> None:
    plan = tmp_path / "kumodr.yaml"
    plan.write_text("version: 1\nsite: x\nvault: {uri: /v}\ncomponents: {}\nstate: /s\n")
    done = subprocess.run(
        [sys.executable, "-m", "kumodr", "check", "--plan", str(plan), "--json"], capture_output=True, text=True
    )
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_code"] == 2
    assert set(document) == {field.removesuffix("[]") for field in promised()["When a command fails"]}
    assert document["mistakes"]
