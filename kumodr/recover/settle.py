"""Put the last changes of a stream into both halves of a restored spool, and count exactly what must be there then.

The keys are taken in ranges, part by part: which messages the base holds there, what the stream did to them last, and
so what is written and what is taken out. A delete of what is not there is not written: a busy site has ten of them for
each message that stays. Of a base whose halves held the same messages only the metadata are looked at.

A large stream is settled by several processes, `python -m kumodr.recover.settle`, each with a range of the keys: Python
uses one processor at a time. They make tables (`tables.py`), which the parent takes in.
"""

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from kumodr import errors
from kumodr.recover.evidence import FinishedIds
from kumodr.recover.files import Files
from kumodr.recover.halves import PartsOf, RocksHalf, keys_of
from kumodr.recover.journal import PARTS, Changed, Journal, noted_of, range_of
from kumodr.recover.tables import Tables
from kumodr.spool.identifier import LENGTH
from kumodr.spool.kind import kind_of

WORTH_PROCESSES = 100_000
"""With fewer changes than this a process of its own costs more than it saves."""

HALVES = ("meta", "data")


@dataclass(frozen=True)
class Settled:
    """How many messages the base held, how many keys each half holds now, how many ids the stream deleted last."""

    base: int
    messages: int
    bodies: int
    finished: int


class _Output(Protocol):
    def write(self, changed: Changed, gone: Collection[bytes]) -> None: ...
    def finish(self) -> list[str]: ...


def settle(root: Path, journals: Mapping[str, Journal], finished: FinishedIds, *, alike: bool) -> Settled:
    """Given the directory with the fetched `spool` and what the stream did to each half, put it there, durably.

    `alike` says that both halves of the base have the same keys. `finished` is told the ids whose metadata the stream
    deleted last. Raise ComponentDamaged where what was put does not read back the same; SpoolDamaged, DiskFull.
    """
    spool = root / "spool"
    rocks = [name for name in HALVES if kind_of(spool / name) == "rocksdb"]
    for name in rocks:  # what lies in the logs of the base goes to tables, once and not in each process
        opened_half(root, name).finish()
    for name in HALVES:
        (root / f"{name}.noted").write_text(json.dumps(journals[name].noted().document()))
    large = sum(journal.count for journal in journals.values()) >= WORTH_PROCESSES
    shares = _processors() if large and len(rocks) == len(HALVES) else 1
    answers = _beside(root, shares, alike) if shares > 1 else [_share(root, "0", range(PARTS), alike)]
    for name in rocks:
        half = opened_half(root, name)
        try:
            half.ingest([table for answer in answers for table in answer["tables"][name]])
            half.finish()
        finally:
            half.close()
    for share in range(shares):
        with (root / f"finished.{share}").open("rb") as file:
            while piece := file.read(LENGTH << 16):
                finished.add([piece])
    return Settled(*(sum(answer["settled"][name] for answer in answers) for name in Settled.__dataclass_fields__))


def opened_half(root: Path, name: str) -> RocksHalf:
    """Given the directory with the fetched `spool`, open a half of kind RocksDB for changes. Raise SpoolDamaged."""
    return RocksHalf(root / "spool" / name, root / f"{name}.engine", living=False)


def _processors() -> int:
    return min(4, len(os.sched_getaffinity(0)))


def _share(root: Path, share: str, parts: range, alike: bool) -> dict[str, Any]:
    """Settle a range of parts; return what became of it, with the paths of the tables to take in."""
    noted = {
        name: noted_of(json.loads((root / f"{name}.noted").read_text()), root / f"{name}.journal") for name in HALVES
    }
    outputs: dict[str, _Output] = {}
    counts = dict.fromkeys(("base", *HALVES, "finished"), 0)
    with ExitStack() as held:
        told = held.enter_context((root / f"finished.{share}").open("wb"))
        held_keys = {
            name: PartsOf(held.enter_context(closing(_keys(root, name, share, parts))))
            for name in (HALVES[:1] if alike else HALVES)
        }
        for name in HALVES:
            size = sum(noted[name].size(part) for part in parts)
            outputs[name] = _output(root / "spool" / name, root / f"{name}.{share}", size)
        for part in parts:
            there = frozenset[bytes]()
            for name in HALVES:
                there = held_keys[name].of_part(part) if name in held_keys else there
                changed = noted[name].of_part(part)
                present = there & changed.gone
                outputs[name].write(changed, present)
                counts[name] += len(there) + len(changed.puts.keys() - there) - len(present)
                if name == "meta":
                    counts["base"] += len(there)
                    ids = [key for key in changed.gone if len(key) == LENGTH]
                    counts["finished"] += len(ids)
                    told.write(b"".join(ids))
        tables = {name: output.finish() for name, output in outputs.items()}
    settled = Settled(counts["base"], counts["meta"], counts["data"], counts["finished"])
    return {"tables": tables, "settled": asdict(settled)}


def _keys(root: Path, name: str, share: str, parts: range) -> Generator[bytes, None, None]:
    return keys_of(root / "spool" / name, root / f"{name}.engine.{share}", *range_of(parts))


def _output(half: Path, place: Path, size: int) -> _Output:
    return Tables(half, place, size) if kind_of(half) == "rocksdb" else Files(half)


def _beside(root: Path, shares: int, alike: bool) -> list[dict[str, Any]]:
    step = -(-PARTS // shares)
    with ExitStack() as held:
        children: list[subprocess.Popen[bytes]] = []
        for share in range(shares):
            words = [sys.executable, "-m", "kumodr.recover.settle", str(root), str(share)]
            words += [str(share * step), str(min(PARTS, (share + 1) * step)), "alike" if alike else "each"]
            child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            held.callback(_end, child)
            children.append(child)
        return [_answer(child) for child in children]


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _answer(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return what a child found. Raise as it would have, or SpoolDamaged where it died."""
    text = child.stdout.read() if child.stdout else b""
    child.wait()
    try:
        answer = json.loads(text)
    except ValueError:
        raise errors.SpoolDamaged(f"settling the restored spool ended with {child.returncode}") from None
    if "error" in answer:
        raise _KINDS.get(answer["error"], errors.SpoolDamaged)(answer["what"])
    return answer


_KINDS = {each.__name__: each for each in (errors.ComponentDamaged, errors.DiskFull)}


def main(words: Sequence[str]) -> int:
    """Settle one share: `ROOT SHARE FIRST END alike|each`, the parts from FIRST to END."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.disable()  # nothing here makes cycles, and looking for them takes time for each message
    try:
        answer = _share(Path(words[0]), words[1], range(int(words[2]), int(words[3])), words[4] == "alike")
    except errors.KumodrError as error:
        answer = {"error": type(error).__name__, "what": error.what}
    except OSError as error:
        answer = {"error": "DiskFull", "what": f"{words[0]} cannot be written: {error.strerror}"}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
