"""The list `images.json` of a restored component, read as what a stranger may have written."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.images.archive import LIST, is_digest

_LARGEST = 16 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}")


@dataclass(frozen=True)
class ServiceImage:
    """A service, the name that its definition gives its image, and the image's id, None where it was not there."""

    service: str
    name: str
    id: str | None


@dataclass(frozen=True)
class StoredImage:
    """An archived image: its id on the host it comes from, the names it had, its config's and its layers' digests."""

    id: str
    tags: tuple[str, ...]
    config: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """What a restored `images` folder holds."""

    services: tuple[ServiceImage, ...]
    archives: tuple[StoredImage, ...]


def stored_images(folder: Path) -> Stored:
    """Given a restored `images` folder, return what its list says. Raise ComponentDamaged."""
    try:
        with open(folder / LIST, "rb") as file:
            document: Any = json.loads(file.read(_LARGEST))
        services = tuple(
            ServiceImage(str(each["service"]), str(each["name"]), each["id"]) for each in document["services"]
        )
        archives = tuple(_archive(each) for each in document["archives"])
    except FileNotFoundError as error:
        raise errors.ComponentDamaged(f"{folder} holds no {LIST}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.ComponentDamaged(f"{folder / LIST} cannot be read: {error}") from error
    return Stored(services, archives)


def _archive(entry: Any) -> StoredImage:
    tags, layers = tuple(entry["tags"]), tuple(entry["layers"])
    if not all(is_digest(each) for each in (entry["config"], *layers)):
        raise ValueError("a digest is none")
    if not all(isinstance(each, str) and _NAME.fullmatch(each) for each in (*tags, entry["id"])):
        raise ValueError("an image's name is none")
    return StoredImage(entry["id"], tags, entry["config"], layers)
