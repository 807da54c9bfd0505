"""Every message accounted for: what the load wrote down against what the sink took."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sent:
    """One message that the server acknowledged. `acknowledged` is in ns since 1970."""

    load_id: str
    ids: tuple[str, ...]
    recipient: str
    acknowledged: int


@dataclass(frozen=True)
class Taken:
    """One message that the sink took. `time` is in ns since 1970."""

    load_id: str
    id: str
    recipient: str
    time: int
    sha256: str


@dataclass(frozen=True)
class Account:
    """The sums. `duplicates` are load ids that the sink took more than once; `missing` acknowledged ones it never took.

    `unrecorded` are load ids that the sink took though no acknowledgement was seen: the connection broke in between.
    """

    acknowledged: int
    delivered: int
    duplicates: tuple[str, ...]
    missing: tuple[str, ...]
    unrecorded: tuple[str, ...]


def sent(world: Path) -> list[Sent]:
    """Given the world's directory, return every acknowledged message, of all loads."""
    found: list[Sent] = []
    for path in sorted(world.glob("load*.jsonl")):
        for line in _lines(path):
            if line["end"] == "acknowledged":
                found.append(Sent(line["load_id"], tuple(line["ids"]), line["recipient"], line["acknowledged"]))
    return found


def taken(world: Path) -> list[Taken]:
    """Given the world's directory, return every message that the sink took, in that order."""
    lines = _lines(world / "index.jsonl")
    return [Taken(each["load_id"], each["id"], each["recipient"], each["time"], each["sha256"]) for each in lines]


def account(messages: list[Sent], deliveries: list[Taken]) -> Account:
    """Given what was acknowledged and what was taken, return the sums."""
    counts = Counter(each.load_id for each in deliveries if each.load_id)
    acknowledged = {each.load_id for each in messages}
    return Account(
        acknowledged=len(acknowledged),
        delivered=sum(1 for each in acknowledged if counts[each]),
        duplicates=tuple(sorted(load_id for load_id, count in counts.items() if count > 1)),
        missing=tuple(sorted(load_id for load_id in acknowledged if not counts[load_id])),
        unrecorded=tuple(sorted(counts.keys() - acknowledged)),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a file that may be written to at this moment."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n")[:-1]:
        yield json.loads(line)
