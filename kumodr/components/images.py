"""Images as a component: what each service of the runtime is made from, and where wanted the images themselves."""

import hashlib
import json
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding, Verdict
from kumodr.images.archive import CONFIGS, LAYERS, LIST
from kumodr.plan.model import ImagesPlan, Plan
from kumodr.runtimes.protocol import Image
from kumodr.source import Capture, CaptureFacts, Held, SourceFile

_FORM = 1
"""Raised when what is stored for the same images changes."""


class ImagesComponent:
    """`images.json` names the image of every service; with archives, `configs/` and `layers/` hold the images."""

    name = "images"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._whole = plan
        self._plan: ImagesPlan = plan.components.images or ImagesPlan()

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Name the image of every service. Archives are asked of Docker when the files are, one image at a time: what
        has not changed, by its digests, is neither saved nor read again.

        An image is saved by its id, so that a name that moves meanwhile changes nothing. Raise ComponentUnavailable.
        """
        services = self._services()
        here = {each.id: each for each in services.values() if each.id is not None}
        missing = sorted(f"{name}: {each.name}" for name, each in services.items() if each.id is None)
        named = {name: asdict(each) for name, each in sorted(services.items())}
        text = json.dumps([_FORM, self._plan.archives, named], sort_keys=True)
        archived: list[dict[str, Any]] = []

        def files() -> Iterator[SourceFile]:
            stored = set[str]()
            for identifier, image in sorted(here.items()) if self._archivable else ():
                entry = {"id": identifier, "tags": list(_tags(image, services.values()))}
                yield from self._saved(image, entry, stored)
                archived.append(entry)
            document = {
                "services": [{"service": name, **facts} for name, facts in named.items()],
                "archives": archived,
            }
            data = json.dumps(document, indent=1).encode() + b"\n"
            yield SourceFile(LIST, size=len(data), content=Held(data))

        def facts() -> CaptureFacts:
            layers = {layer for entry in archived for layer in entry["layers"]}
            clear = {
                "services": len(services),
                "images": len(here),
                "archived": len(archived),
                "layers": len(layers),
                "missing": len(missing),
            }
            return CaptureFacts(clear, {"missing": missing})

        yield Capture(files(), facts, hashlib.sha256(text.encode()).hexdigest())

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/images`, hash every config and layer and compare them with what they are called by."""
        from kumodr.images.archive import why_not_whole
        from kumodr.images.stored import stored_images

        try:
            stored = stored_images(restored)
        except errors.ComponentDamaged as error:
            return Verdict(error.what)
        problems = [why_not_whole(restored, each.config, each.layers) for each in stored.archives]
        found = [each for each in problems if each is not None]
        layers = {layer for each in stored.archives for layer in each.layers}
        facts = {"services": len(stored.services), "archived": len(stored.archives), "layers": len(layers)}
        warnings = tuple(
            f"service {each.service}: its image {each.name} was not on the host and is not stored"
            for each in stored.services
            if each.id is None
        )
        return Verdict("; ".join(found) or None, facts, warnings)

    def health(self) -> tuple[Finding, ...]:
        """Say how many images there are, and whose is not here or is not stored."""
        try:
            services = self._services()
        except errors.KumodrError as error:
            return (Finding("bad", error.what, error.remedy),)
        images = {each.id for each in services.values() if each.id is not None}
        found = [Finding("good", f"images: {len(images)} of {len(services)} services")]
        for name, image in sorted(services.items()):
            if image.id is None:
                text = f"images: {image.name} of service {name} is not on this host"
                found.append(Finding("warning", text, "pull or build it, or take the service out of the project"))
            elif not self._plan.archives and not image.digests and self._whole.runtime.kind == "compose":
                text = f"images: {image.name} of service {name} is in no registry and not stored"
                found.append(Finding("warning", text, "set components.images.archives: true in kumodr.yaml"))
        return tuple(found)

    @property
    def _archivable(self) -> bool:
        return self._plan.archives and self._whole.runtime.kind == "compose"

    def _services(self) -> dict[str, Image]:
        from kumodr.runtimes.opening import runtime_of

        try:
            runtime = runtime_of(self._whole, say=lambda _text: None)
            return {name: runtime.image(name) for name in runtime.services()}
        except errors.KumodrError as error:
            raise errors.ComponentUnavailable(f"images: {error.what}", remedy=error.remedy) from error

    def _saved(self, image: Image, entry: dict[str, Any], stored: set[str]) -> Iterator[SourceFile]:
        """Save one image into an unnamed file, and give its config and those of its layers that were not given yet."""
        from kumodr.images.archive import read_archive
        from kumodr.runtimes.commands import run

        folder = self._whole.state if Path(self._whole.state).is_dir() else None
        with tempfile.TemporaryFile(dir=folder) as file:
            answer = run(["docker", "save", str(image.id)], limit=self._plan.timeout, output=file)
            if answer.code:
                reason = " ".join(answer.err.decode(errors="replace").split())[:300]
                raise errors.ComponentUnavailable(f"images: {image.name} cannot be saved: {reason}")
            archive = read_archive(file)
            if [f"sha256:{each}" for each in archive.diffs] != list(image.layers):
                raise errors.ComponentDamaged(f"images: Docker saved other layers of {image.name} than it has")
            entry |= {"config": archive.config, "layers": [digest for digest, _ in archive.layers]}
            config = Held(archive.config_bytes)
            parts = [(f"{CONFIGS}/{archive.config}.json", len(archive.config_bytes), config, archive.config)]
            parts += [(f"{LAYERS}/{digest}", piece.size, piece, digest) for digest, piece in archive.layers]
            for path, size, content, digest in parts:
                if path not in stored:
                    stored.add(path)
                    yield SourceFile(path, size=size, content=content, identity=(int(digest, 16),))


def _tags(image: Image, all_images: Any) -> Iterator[str]:
    """Yield the names that an image must have again: those that services call it by, and its tags."""
    called = (each.name for each in all_images if each.id == image.id)
    for name in dict.fromkeys((*called, *image.tags)):
        if "@" not in name and not name.startswith("sha256:") and not _is_id(name):
            yield name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _is_id(name: str) -> bool:
    return len(name) >= 12 and all(each in "0123456789abcdef" for each in name)
