"""Bring stored images back into Docker: what is to be done, and doing it. No registry is asked."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kumodr import errors
from kumodr.images.archive import for_docker, why_not_whole
from kumodr.images.stored import StoredImage, stored_images
from kumodr.runtimes.commands import Runner, run
from kumodr.runtimes.docker_errors import named

_QUICK = 60.0
_SLOW = 1800.0


@dataclass(frozen=True)
class Loading:
    """What one image needs: nothing, its tags, or to be loaded; `moves` are (tag, id that it names now)."""

    image: StoredImage
    action: Literal["nothing", "tag", "load"]
    moves: tuple[tuple[str, str], ...]


def plan_loading(folder: Path, *, runner: Runner = run) -> tuple[Loading, ...]:
    """Given a restored `images` folder, return what Docker here lacks of it. Raise ComponentDamaged, and Docker's."""
    stored = stored_images(folder)
    if not stored.archives:
        raise errors.ComponentUnavailable(
            f"{folder} holds the names of images, and not the images",
            remedy="pull them by the digests in images.json; set components.images.archives: true to have them stored",
        )
    return tuple(_needed(image, folder, runner) for image in stored.archives)


def load(folder: Path, planned: Sequence[Loading], *, runner: Runner = run) -> None:
    """Given what was planned, hash the images, load them, and see that Docker has each under its names.

    Doing it again does nothing that is done. Raise ComponentDamaged before anything was given to Docker.
    """
    wanted = [each.image for each in planned if each.action == "load"]
    for image in wanted:
        problem = why_not_whole(folder, image.config, image.layers)
        if problem is not None:
            raise errors.ComponentDamaged(f"{folder}: {problem}")
    if wanted:
        _give_to_docker(folder, wanted)
    for each in planned:
        if each.action == "tag":
            for tag in each.image.tags:
                _docker(["tag", f"sha256:{each.image.config}", tag], runner)
    for each in planned:
        after = _needed(each.image, folder, runner)
        if after.action != "nothing":
            raise errors.ServiceFailed(f"Docker took image {each.image.id[:19]}, and does not show it under its names")


def _needed(image: StoredImage, folder: Path, runner: Runner) -> Loading:
    """Return what an image needs. Docker knows one by the digest of its config, and since 29 by that of a manifest;
    so where the config's is unknown, what a tag names counts where it has the same layers.
    """
    tags = {tag: _inspected(tag, runner) for tag in image.tags}
    here = _inspected(f"sha256:{image.config}", runner)
    diffs = _diffs(folder, image)
    same = {tag: facts is not None and _layers(facts) == diffs for tag, facts in tags.items()}
    if here is not None:
        same = {tag: facts is not None and facts["Id"] == here["Id"] for tag, facts in tags.items()}
    moves = tuple((tag, str(facts["Id"])) for tag, facts in tags.items() if facts is not None and not same[tag])
    if all(same.values()) and (here is not None or same):
        return Loading(image, "nothing", ())
    return Loading(image, "tag" if here is not None else "load", moves)


def _give_to_docker(folder: Path, images: Sequence[StoredImage]) -> None:
    entries = [{"config": each.config, "layers": each.layers, "tags": list(each.tags)} for each in images]
    try:
        child = subprocess.Popen(
            ["docker", "load", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise errors.DockerAbsent(f"docker cannot be run: {error.strerror}") from error
    assert child.stdin and child.stdout  # noqa: S101 — asked for above
    broken: OSError | None = None
    try:
        with child.stdin:
            for_docker(folder, entries, child.stdin)
    except BrokenPipeError:
        broken = BrokenPipeError()
    except BaseException:
        child.kill()
        child.wait()
        raise
    said = child.stdout.read(1 << 20).decode(errors="replace")
    if child.wait(_SLOW) or broken is not None:
        raise named(said, "docker load")


def _diffs(folder: Path, image: StoredImage) -> list[str]:
    from kumodr.images.archive import CONFIGS, diffs_of

    try:
        return [f"sha256:{each}" for each in diffs_of((folder / CONFIGS / f"{image.config}.json").read_bytes())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.ComponentDamaged(f"{folder}: the config {image.config[:12]} cannot be read: {error}") from error


def _layers(facts: dict[str, Any]) -> list[str]:
    return list(facts["RootFS"].get("Layers") or ())


def _inspected(name: str, runner: Runner) -> dict[str, Any] | None:
    answer = runner(["docker", "image", "inspect", name], limit=_QUICK)
    if answer.code == 0:
        return json.loads(answer.out)[0]
    if b"no such image" in answer.err.lower():
        return None
    raise named(answer.err.decode(errors="replace"), name)


def _docker(words: Sequence[str], runner: Runner) -> None:
    answer = runner(["docker", *words], limit=_QUICK)
    if answer.code:
        raise named(answer.err.decode(errors="replace"), words[-1])
