"""How a lab site is to be: the options of `kumodr lab up`, kept with the site's configuration."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from kumodr.durable import write_file


@dataclass(frozen=True)
class Options:
    """`kumod` is a real binary, `kumod_image` a real image; neither: the stand-in. Durations in seconds.

    `write_buffer_size` is in bytes. `sidecar` says whether a site in containers has kumodr beside it.
    """

    kind: Literal["RocksDB", "LocalDisk"] = "RocksDB"
    kumod: str | None = None
    retry_interval: float = 5.0
    max_retry_interval: float | None = 20.0
    max_age: float = 604800.0
    max_segment_duration: float = 1.0
    write_buffer_size: int | None = None
    seed: int | None = None
    redis: bool = True
    prometheus: bool = True
    kumod_image: str | None = None
    sidecar: bool = True


def write_options(path: Path, options: Options) -> None:
    """Given a file, write the options to it."""
    write_file(path, json.dumps(asdict(options), indent=2).encode() + b"\n", mode=0o644)


def read_options(path: Path) -> Options:
    """Given a file that `write_options` wrote, return the options."""
    return Options(**json.loads(path.read_text()))
