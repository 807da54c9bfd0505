"""Small disks, for tests that fill them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import wait_for


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Given a folder to make and a size, like "2m", give a disk of that size there."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def mounted_if_allowed(folder: Path, size: str) -> Iterator[Path | None]:
    """As `mounted`, but None where this user may not. Whoever still works there has a moment to end."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        wait_for(
            "the end of work there",
            lambda: not subprocess.run(["umount", folder], stderr=subprocess.DEVNULL).returncode,
        )
