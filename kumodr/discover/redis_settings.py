"""How a Redis server was told to keep its data: from its command line and its configuration file."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RedisSettings:
    """`save` is None where nothing is said: then Redis saves by its own rule. The password itself is not kept."""

    port: int = 6379
    folder: str | None = None
    save: str | None = None
    append_only: bool = False
    password: bool = False


def redis_settings(words: Sequence[str], read: Callable[[str], str]) -> RedisSettings:
    """Given the words of its command and what reads a file that it names, return its settings, the last word counts."""
    given: list[list[str]] = []
    options: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            options.append([word[2:]])
        elif options:
            options[-1].append(word)
        elif word.endswith(".conf"):
            given += _lines(read(word))
    found: dict[str, list[str]] = {}
    for name, *values in (*given, *options):
        key = name.lower()
        # `save ""` takes back what was said before; each other `save` adds to it.
        found[key] = [*found.get(key, []), *values] if key == "save" and values != [""] else values
    one = {name: values[0] if values else "" for name, values in found.items()}
    port = one.get("port", "6379")
    return RedisSettings(
        port=int(port) if port.isdigit() else 6379,
        folder=one.get("dir"),
        save=" ".join(found["save"]).strip() if "save" in found else None,
        append_only=one.get("appendonly", "no").lower() == "yes",
        password=bool(one.get("requirepass")) or "aclfile" in one,
    )


def _lines(text: str) -> list[list[str]]:
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                words = shlex.split(line)
            except ValueError:
                words = line.split()
            if words:
                found.append(words)
    return found
