"""Make vaults, backups and file trees for tests of the vault."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kumodr.source import Capture, CaptureFacts, OnDisk, SourceFile, identity_of
from kumodr.vault.backup import begin_backup
from kumodr.vault.facts import Point
from kumodr.vault.keys import Identities, Identity, NodeKey, generate_identity, parse_identities
from kumodr.vault.open import Vault, create_vault

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def quiet(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


def tree_files(root: Path) -> list[SourceFile]:
    """Given a folder, return it as a capture's files."""
    found: list[SourceFile] = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = "symlink" if path.is_symlink() else "directory" if path.is_dir() else "file"
        found.append(
            SourceFile(
                path=str(path.relative_to(root)),
                kind=kind,
                mode=status.st_mode & 0o7777,
                mtime_ns=status.st_mtime_ns,
                size=status.st_size if kind == "file" else 0,
                content=OnDisk(str(path)),
                identity=identity_of(status),
                target=os.readlink(path) if kind == "symlink" else "",
            )
        )
    return found


def capture_of(files: Iterable[SourceFile], fingerprint: str | None = None) -> Capture:
    """Given files, return a capture of them."""
    return Capture(files=files, facts=lambda: CaptureFacts({"things": 1}, {"secret": "hush"}), fingerprint=fingerprint)


def content_of(root: Path) -> dict[str, tuple[str, bytes | str]]:
    """Given a folder, return what is in it by path."""
    return {
        str(path.relative_to(root)): ("link", os.readlink(path))
        if path.is_symlink()
        else ("directory", b"")
        if path.is_dir()
        else ("file", path.read_bytes())
        for path in root.rglob("*")
    }


@dataclass
class Bench:
    """A vault with its key, a node, and a clock that moves a minute with each look."""

    folder: Path
    vault: Vault
    identity: Identity
    key: NodeKey
    now: datetime = START

    @property
    def identities(self) -> Identities:
        """What opens the vault."""
        return parse_identities(self.identity.secret, "test")

    @property
    def state(self) -> Path:
        """The node's state directory."""
        return self.folder / "state"

    @property
    def objects(self) -> dict[str, int]:
        """Inode of every object file, by name."""
        return {
            path.name: path.stat().st_ino for path in (self.folder / "vault" / "objects").rglob("*") if path.is_file()
        }

    def clock(self) -> datetime:
        """Return the time and move on."""
        self.now += timedelta(minutes=1)
        return self.now

    def backup(self, captures: dict[str, Capture], progress: Callable[[str, int, int], None] = quiet) -> Point:
        """Store captures by component and commit."""
        with begin_backup(self.vault, self.key, self.state, self.clock, progress) as session:
            for component, capture in captures.items():
                session.store(component, capture)
            return session.commit()

    def backup_tree(self, root: Path, fingerprint: str | None = None) -> Point:
        """Store a folder as the component `config`."""
        return self.backup({"config": capture_of(tree_files(root), fingerprint)})


def bench(folder: Path) -> Bench:
    """Given a folder, make a vault in it."""
    identity = generate_identity()
    vault = create_vault(str(folder / "vault"), [identity.recipient], lambda: START)
    return Bench(folder, vault, identity, NodeKey.load_or_create(folder / "state", "primary"))
