"""What `docker save` writes, taken apart: one image's config and layers, each by the digest of its bytes.

The archive is one tar whose order and folder names differ between versions of Docker (`ID/layer.tar` of old,
`blobs/sha256/HEX` since 25). `manifest.json` in it says which member is the config and which are the layers, in order.
Why the parts are the image: its id is the SHA-256 of its config, and the config holds, in `rootfs.diff_ids`, the
SHA-256 of every layer's tar. So an image is known to be whole without Docker, and a layer that two images share, or
that was stored before, is one file with one name.
"""

import gzip
import hashlib
import io
import json
import os
import posixpath
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from kumodr import errors

LAYERS, CONFIGS, LIST = "layers", "configs", "images.json"
_AT_ONCE = 1 << 20
_LARGEST_JSON = 16 << 20
_MOST_MEMBERS = 100_000


class Reader(Protocol):
    """What bytes can be read from, in order."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Slice:
    """Bytes inside an open file, as the content of a file of its own."""

    descriptor: int
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self.descriptor, min(length, self.size - offset), self.start + offset)
        if len(data) < min(length, self.size - offset):
            raise OSError(f"the image archive is shorter than it says, at {self.start + offset}")
        return data


@dataclass(frozen=True)
class Archive:
    """One image of an archive: its config's digest and bytes, and its layers as (digest, bytes), from the lowest up.

    Digests are 64 hexadecimal digits. `diffs` is what the config says the layers' tars hash to.
    """

    config: str
    config_bytes: bytes
    layers: tuple[tuple[str, Slice], ...]
    diffs: tuple[str, ...]


def read_archive(file: IO[bytes]) -> Archive:
    """Given what `docker save` wrote for one image, return its parts, hashed. Raise ComponentDamaged."""
    try:
        members = _members(file)
        (entry,) = json.loads(_small(members, "manifest.json"))
        config = _small(members, str(entry["Config"]))
        slices = [_found(members, str(name)) for name in entry["Layers"]]
        diffs = diffs_of(config)
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise errors.ComponentDamaged(
            f"images: what `docker save` wrote cannot be read: {error}", remedy="try `docker save` by hand"
        ) from error
    digests = {each: _digest(each) for each in dict.fromkeys(slices)}
    layers = tuple((digests[each], each) for each in slices)
    return Archive(hashlib.sha256(config).hexdigest(), config, layers, diffs)


def diffs_of(config: bytes) -> tuple[str, ...]:
    """Given an image's config, return what its layers' tars hash to. Raise ValueError where it is none."""
    found: Any = json.loads(config)["rootfs"].get("diff_ids") or []
    diffs = tuple(str(each).removeprefix("sha256:") for each in found)
    if not all(is_digest(each) for each in diffs):
        raise ValueError("a layer's digest in the config is none")
    return diffs


def is_digest(text: object) -> bool:
    """Whether something is 64 hexadecimal digits; what is read from a vault becomes a path only then."""
    return isinstance(text, str) and len(text) == 64 and all(each in "0123456789abcdef" for each in text)


def why_not_whole(folder: Path, config: str, layers: Sequence[str]) -> str | None:
    """Given a folder with `configs/` and `layers/`, return why it does not hold the image of that config, or None.

    Every byte is hashed, compressed layers also as what they are opened.
    """
    try:
        with open(folder / CONFIGS / f"{config}.json", "rb") as file:
            data = file.read(_LARGEST_JSON)
        if hashlib.sha256(data).hexdigest() != config:
            return f"the config {config[:12]} is damaged"
        diffs = diffs_of(data)
        if len(diffs) != len(layers):
            return f"the config {config[:12]} names {len(diffs)} layers, and {len(layers)} are stored"
        for layer, diff in zip(layers, diffs, strict=True):
            path = folder / LAYERS / layer
            with open(path, "rb") as file:
                plain = _hash(file)
            if plain != layer or diff not in (plain, _opened_hash(path)):
                return f"layer {layer[:12]} of image {config[:12]} is damaged"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name[:12]} of image {config[:12]} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"image {config[:12]} cannot be read: {error}"
    return None


def for_docker(folder: Path, images: Sequence[Mapping[str, Any]], to: IO[bytes]) -> None:
    """Given a folder and images of its list, write the tar that `docker load` reads; each layer once. Raise OSError."""
    entries: list[dict[str, Any]] = []
    with tarfile.open(fileobj=to, mode="w|", bufsize=_AT_ONCE) as tar:
        written: set[str] = set()
        for image in images:
            members = {f"{image['config']}.json": folder / CONFIGS / f"{image['config']}.json"}
            members |= {f"{layer}/layer.tar": folder / LAYERS / layer for layer in image["layers"]}
            for name, path in members.items():
                if name not in written:
                    written.add(name)
                    with open(path, "rb") as file:
                        member = tarfile.TarInfo(name)
                        member.size = os.fstat(file.fileno()).st_size
                        tar.addfile(member, file)
            layers = [f"{layer}/layer.tar" for layer in image["layers"]]
            entries.append({"Config": f"{image['config']}.json", "RepoTags": image["tags"] or None, "Layers": layers})
        data = json.dumps(entries).encode()
        member = tarfile.TarInfo("manifest.json")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def _members(file: IO[bytes]) -> dict[str, Slice | str]:
    """Return every member's bytes, or where it is a link what it leads to, by its name."""
    found: dict[str, Slice | str] = {}
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for number, member in enumerate(tar):
            if number >= _MOST_MEMBERS:
                raise ValueError("it has too many members")
            name = posixpath.normpath(member.name)
            if member.isreg():
                found[name] = Slice(file.fileno(), member.offset_data, member.size)
            elif member.issym():
                found[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                found[name] = posixpath.normpath(member.linkname)
    return found


def _found(members: Mapping[str, Slice | str], name: str) -> Slice:
    for _step in range(8):
        found = members[posixpath.normpath(name)]
        if isinstance(found, Slice):
            return found
        name = found
    raise ValueError("links lead nowhere")


def _small(members: Mapping[str, Slice | str], name: str) -> bytes:
    place = _found(members, name)
    if place.size > _LARGEST_JSON:
        raise ValueError(f"{name} is too large")
    return place.read(0, place.size)


def _digest(place: Slice) -> str:
    digest = hashlib.sha256()
    for offset in range(0, place.size, _AT_ONCE):
        digest.update(place.read(offset, _AT_ONCE))
    return digest.hexdigest()


def _hash(file: Reader) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_AT_ONCE):
        digest.update(piece)
    return digest.hexdigest()


def _opened_hash(path: Path) -> str | None:
    """Return the SHA-256 of what a layer opens to that is compressed by gzip or zstd, None where it is neither."""
    with open(path, "rb") as file:
        first = file.read(4)
        file.seek(0)
        if first.startswith(b"\x1f\x8b"):
            try:
                with gzip.open(file) as opened:
                    return _hash(opened)
            except (EOFError, zlib.error) as error:
                raise ValueError(str(error)) from error
        if first == b"\x28\xb5\x2f\xfd":
            import zstandard

            try:
                with zstandard.ZstdDecompressor().stream_reader(file) as opened:
                    return _hash(opened)
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error
    return None
