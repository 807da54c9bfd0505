"""Parts of a restore, to see what its time goes into.

`python -m benchmarks.parts unvetted VAULT IDENTITY TARGET` brings the spool's files back and syncs them, no more.
`python -m benchmarks.parts synced TARGET COMMAND…` runs another tool's restore, and then syncs what it wrote.
"""

import os
import subprocess
import sys
from pathlib import Path


def main(words: list[str]) -> int:
    """Do one part and return the exit code."""
    if words[0] == "unvetted":
        return unvetted(*words[1:])
    done = subprocess.run(words[2:], check=False)
    sync(Path(words[1]))
    return done.returncode


def unvetted(vault: str, identity: str, target: str) -> int:
    """Fetch the newest point's spool."""
    from kumodr.vault.fetch import fetch
    from kumodr.vault.keys import load_identities
    from kumodr.vault.open import open_vault
    from kumodr.vault.points import survey

    identities = load_identities(identity, {})
    opened = open_vault(vault)
    section = survey(opened, identities.pins).points[-1].section("spool")
    if section is None:
        return 4
    fetch(opened, section, identities, Path(target) / "spool", lambda _what, _done, _total: None)
    return 0


def sync(folder: Path) -> None:
    """Make everything in a folder durable."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
