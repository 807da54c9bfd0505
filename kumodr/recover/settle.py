"""Take out of a half what the stream deleted, and prove what it put: one pass over the keys that are there.

A large database is settled by several processes beside each other, `python -m kumodr.recover.settle`, each with a range
of the keys: Python uses one processor at a time. They only read; the deletes are written afterwards.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.recover.halves import Entry, Half, RocksHalf, entries_of, opened_to_read
from kumodr.recover.journal import GONE, PARTS, Journal, Words, part_of, range_of, word_of, words_of
from kumodr.spool.identifier import LENGTH

WORTH_PROCESSES = 500_000
"""With fewer changes than this a process of its own costs more than it saves."""

Keys = Callable[[Iterable[bytes]], None]
"""Takes keys, part by part."""


@dataclass(frozen=True)
class Settled:
    """How many keys a half holds when what is to be deleted is deleted; how many the stream deleted last."""

    count: int
    gone: int


def settle_all(
    halves: Mapping[str, tuple[Half, Journal]], open_half: Callable[[str], Half], work: Path, finished: Keys
) -> dict[str, Settled]:
    """Given halves with all puts in them and the journals of what the stream said, take out what it deleted and make
    everything durable; `finished` is told the ids whose metadata the stream deleted last.

    Raise ComponentDamaged where a value that was put is absent or another, SpoolDamaged.
    """
    large = sum(journal.size for _, journal in halves.values()) >= WORTH_PROCESSES
    if large and _processors() > 1 and all(isinstance(half, RocksHalf) for half, _ in halves.values()):
        return _settle_beside(halves, open_half, work, finished)
    found: dict[str, Settled] = {}
    for name, (half, journal) in halves.items():
        told = finished if name == "meta" else _nobody
        found[name] = settle(name, half.entries(), journal.words(), range(PARTS), half.delete, told)
        half.finish()
    return found


def settle(name: str, entries: Iterator[Entry], noted: Words, parts: range, there: Keys, finished: Keys) -> Settled:
    """Given the entries of a range of parts in order, and what the stream said, tell `there` the keys that it deleted
    and that are there, and `finished` all that it deleted. Raise ComponentDamaged.
    """
    count = gone = 0
    odd = {key: word for key, word in noted.odd.items() if (part_of(key) if key else 0) in parts}
    following = next(entries, None)
    for part in parts:
        words = noted.of_part(part)
        deleted = [key for key, word in words.items() if word is GONE]
        finished(deleted)
        gone += len(deleted)
        del deleted
        present: list[bytes] = []
        while following is not None and (len(following[0]) != LENGTH or part_of(following[0]) <= part):
            key, read = following
            word = (words if len(key) == LENGTH else odd).pop(key, None)
            if word is GONE:
                present.append(key)
            elif word is not None and word_of(read()) != word:
                raise errors.ComponentDamaged(f"spool: {name} holds another {key.hex()} than the stream put")
            count += word is not GONE
            following = next(entries, None)
        _refuse_missing(name, words)
        there(present)
    _refuse_missing(name, odd)
    return Settled(count, gone)


def _refuse_missing(name: str, words: Mapping[bytes, bytes]) -> None:
    """Given the words of keys that were not found, raise ComponentDamaged where one of them must be there."""
    for key, word in words.items():
        if word is not GONE:
            raise errors.ComponentDamaged(f"spool: {name} lacks {key.hex()}, which the stream put")


def _nobody(_keys: Iterable[bytes]) -> None:
    """A body that is gone says nothing that its metadata does not."""


def _settle_beside(
    halves: Mapping[str, tuple[Half, Journal]], open_half: Callable[[str], Half], work: Path, finished: Keys
) -> dict[str, Settled]:
    for name, (half, journal) in halves.items():
        half.finish()
        (work / f"{name}.words").write_text(json.dumps(journal.words().document()))
    shares = _processors()
    step = -(-PARTS // shares)
    with ExitStack() as held:
        children: list[subprocess.Popen[bytes]] = []
        for share in range(shares):
            words = [sys.executable, "-m", "kumodr.recover.settle", str(work), str(share)]
            words += [str(share * step), str(min(PARTS, (share + 1) * step)), *halves]
            child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            held.callback(_end, child)
            children.append(child)
        answers = [_answer(child) for child in children]
    for share in range(shares):
        path = work / f"finished.{share}"
        with path.open("rb") as file:
            while piece := file.read(LENGTH << 16):
                finished([piece])
        path.unlink()
    found: dict[str, Settled] = {}
    for name in halves:
        half = open_half(name)
        try:
            for share in range(shares):
                half.delete(_keys_of(work / f"{name}.there.{share}"))
                half.delete(bytes.fromhex(key) for key in answers[share][name]["odd"])
            half.finish()
        finally:
            half.close()
        each = [answer[name] for answer in answers]
        found[name] = Settled(sum(one["count"] for one in each), sum(one["gone"] for one in each))
    return found


def _processors() -> int:
    return min(4, len(os.sched_getaffinity(0)))


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _answer(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return what a child found. Raise ComponentDamaged or SpoolDamaged as it would have, or where it died."""
    text = child.stdout.read() if child.stdout else b""
    child.wait()
    try:
        answer = json.loads(text)
    except ValueError:
        raise errors.SpoolDamaged(f"reading the restored spool ended with {child.returncode}") from None
    if "error" in answer:
        kind = errors.ComponentDamaged if answer["error"] == "ComponentDamaged" else errors.SpoolDamaged
        raise kind(answer["what"])
    return answer


def _keys_of(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    path.unlink()
    for at in range(0, len(data), LENGTH):
        yield data[at : at + LENGTH]


def main(words: Sequence[str]) -> int:
    """Settle one share, reading only: `WORK SHARE FIRST END HALF…`, the parts from FIRST to END."""
    work, share, parts = Path(words[0]), words[1], range(int(words[2]), int(words[3]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: dict[str, Any] = {}
    try:
        for name in words[4:]:
            noted = words_of(json.loads((work / f"{name}.words").read_text()), work / f"{name}.journal")
            odd: list[str] = []
            with (work / f"{name}.there.{share}").open("wb") as there, ExitStack() as held:
                told = held.enter_context((work / f"finished.{share}").open("ab")) if name == "meta" else None

                def keep(keys: Iterable[bytes], there: Any = there, odd: list[str] = odd) -> None:
                    for key in keys:
                        if len(key) == LENGTH:
                            there.write(key)
                        else:
                            odd.append(key.hex())

                def tell(keys: Iterable[bytes], told: Any = told) -> None:
                    if told is not None:
                        told.write(b"".join(keys))

                half = work / "spool" / name
                database = opened_to_read(half, work / f"{name}.engine.{share}")
                settled = settle(name, entries_of(database, half, *range_of(parts)), noted, parts, keep, tell)
                database.close()
            answer[name] = {"count": settled.count, "gone": settled.gone, "odd": odd}
    except errors.KumodrError as error:
        answer = {"error": type(error).__name__, "what": error.what}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
