"""The tools that are compared: for each, the commands of every phase. A new tool is one more entry in TOOLS."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Command

PHASES = {
    "first": "first backup",
    "unchanged": "unchanged backup",
    "verify": "deep verify",
    "restore": "restore",
}


@dataclass(frozen=True)
class Place:
    """Where one tool works in one round: the spool, a home of its own, and where it restores to."""

    spool: Path
    home: Path
    target: Path

    @property
    def store(self) -> Path:
        """What the tool stores, and nothing else: its size is what counts."""
        return self.home / "stored" / "store"


@dataclass(frozen=True)
class Tool:
    """`prepare` is not measured; the others are the phases. `restored` is where the spool is after a restore.

    `parts` are restores that do less or more, by what is different: they tell what the time of `restore` goes into.
    """

    name: str
    version: tuple[str, ...]
    manner: str
    prepare: Callable[[Place], tuple[Command, ...]]
    first: Callable[[Place], Command]
    unchanged: Callable[[Place], Command]
    verify: Callable[[Place], Command]
    restore: Callable[[Place], Command]
    restored: Callable[[Place], Path] = lambda place: place.target
    parts: Callable[[Place], Mapping[str, Command]] = lambda _place: {}


REPOSITORY = Path(__file__).resolve().parent.parent
KUMODR = str(Path(sys.executable).parent / "kumodr")


def _kumodr(place: Place, *words: str) -> Command:
    plan = place.home / "kumodr.yaml"
    return Command((KUMODR, words[0], "--plan", str(plan), *words[1:]))


def _kumodr_prepare(place: Place) -> tuple[Command, ...]:
    plan = {
        "version": 1,
        "site": "bench",
        "vault": {"url": str(place.store)},
        "state": str(place.home / "state"),
        "components": {
            "spool": {"meta": str(place.spool / "meta"), "data": str(place.spool / "data"), "kind": "rocksdb"}
        },
    }
    (place.home / "kumodr.yaml").write_text(json.dumps(plan, indent=1))  # JSON is YAML
    (place.home / "kumodr.yaml").chmod(0o600)
    return (_kumodr(place, "vault", "init", "--identity-out", _identity(place)),)


def _part(*words: str, folder: Path | None = None) -> Command:
    return Command((sys.executable, "-m", "benchmarks.parts", *words), {"PYTHONPATH": str(REPOSITORY)}, folder)


def _unvetted(place: Place) -> Mapping[str, Command]:
    return {"not vetted": _part("unvetted", str(place.store), _identity(place), str(place.target))}


def _synced(place: Place) -> Mapping[str, Command]:
    words = _restic(place, "restore", "latest", "--target", str(place.target)).words
    return {"synced to disk": _part("synced", str(place.target), *words, folder=place.spool)}


def _identity(place: Place) -> str:
    return str(place.home / "identity.txt")


def _restic(place: Place, *words: str) -> Command:
    cache = ("--cache-dir", str(place.home / "cache"))
    secret = ("--password-file", str(_secret(place)))
    return Command(("restic", *words, "--repo", str(place.store), *cache, *secret), folder=place.spool)


def _secret(place: Place) -> Path:
    path = place.home / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text("a password only for the benchmark\n")
    return path


def _borg(place: Place, *words: str, folder: Path | None = None) -> Command:
    environment = {
        "BORG_REPO": str(place.store),
        "BORG_PASSPHRASE": _secret(place).read_text().strip(),
        "BORG_BASE_DIR": str(place.home / "base"),
    }
    return Command(("borg", *words), environment, folder or place.spool)


def _tar(archive: Path, place: Place) -> Command:
    return Command(("tar", "-czf", str(archive), "-C", str(place.spool), "."))


def _archive(place: Place) -> Path:
    return place.store / "spool.tar.gz"


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            name="kumodr",
            version=(KUMODR, "--version"),
            manner="zstd and age to a public key; consistent snapshot, each copy opened and read; restore vetted",
            prepare=_kumodr_prepare,
            first=lambda place: _kumodr(place, "backup"),
            unchanged=lambda place: _kumodr(place, "backup"),
            verify=lambda place: _kumodr(place, "verify", "--deep", "--identity", _identity(place)),
            restore=lambda place: _kumodr(place, "restore", "--to", str(place.target), "--identity", _identity(place)),
            restored=lambda place: place.target / "spool",
            parts=_unvetted,
        ),
        Tool(
            name="restic",
            version=("restic", "version"),
            manner="its defaults (zstd, AES with a shared password); `check --read-data`; restore not vetted",
            prepare=lambda place: (_restic(place, "init"),),
            first=lambda place: _restic(place, "backup", "."),
            unchanged=lambda place: _restic(place, "backup", "."),
            verify=lambda place: _restic(place, "check", "--read-data"),
            restore=lambda place: _restic(place, "restore", "latest", "--target", str(place.target)),
            parts=_synced,
        ),
        Tool(
            name="borg",
            version=("borg", "--version"),
            manner="its defaults (lz4), encryption repokey; `check --verify-data`; restore not vetted",
            prepare=lambda place: (_borg(place, "init", "--encryption", "repokey"),),
            first=lambda place: _borg(place, "create", "::first", "."),
            unchanged=lambda place: _borg(place, "create", "::second", "."),
            verify=lambda place: _borg(place, "check", "--verify-data"),
            restore=lambda place: _borg(place, "extract", "::first", folder=place.target),
        ),
        Tool(
            name="tar",
            version=("tar", "--version"),
            manner="`tar -czf`: not encrypted, one core, all again each time, nothing synced to disk; `gzip -t`",
            prepare=lambda place: (Command(("mkdir", str(place.store))),),
            first=lambda place: _tar(_archive(place), place),
            unchanged=lambda place: _tar(place.home / "again.tar.gz", place),
            verify=lambda place: Command(("gzip", "-t", str(_archive(place)))),
            restore=lambda place: Command(("tar", "-xzf", str(_archive(place)), "-C", str(place.target))),
        ),
    )
}
