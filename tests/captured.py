"""Write a capture out to a folder, as a vault would bring it back."""

import os
from pathlib import Path

from kumodr.components.protocol import Component
from kumodr.source import CaptureFacts


def written_out(component: Component, folder: Path) -> CaptureFacts:
    """Given a component, capture it into `folder` and return what the capture learnt."""
    with component.capture() as capture:
        for file in capture.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.kind == "directory":
                path.mkdir(exist_ok=True)
            elif file.kind == "symlink":
                os.symlink(file.target, path)
            else:
                path.write_bytes(file.content.read(0, file.size))
                path.chmod(file.mode)
        return capture.facts()
