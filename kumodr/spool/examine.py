"""The child process that reads a spool which may be damaged: `python -m kumodr.spool.examine`.

RocksDB may end the process, or take much memory, on damaged input: that must not happen to the process that makes the
backup. The first line of standard input is the request; standard input stays open as long as the parent wants the
answer, so that this ends with its parent, even when that was killed. The answer is JSON lines on standard output; the
last one is `{"end": …}`, and an answer without it is none.
"""

import base64
import gc
import json
import os
import resource
import shutil
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from kumodr import errors
from kumodr.spool import census
from kumodr.spool.live import LiveFiles
from kumodr.spool.localdisk import LocalReader
from kumodr.spool.logcheck import LogCheck
from kumodr.spool.rocksread import Range, RocksReader
from kumodr.spool.view import ViewFile, build

TALLY = struct.Struct(">16sQ")
"""One line of a tally: an id's bytes, the size of its content."""

SHARES = 2
"""Into how many shares the reading of a spool is divided where that is worth it."""

_STRIPES = 8
_LEAST_MEMORY = 3 << 30
_RECORDS_AT_ONCE = 4096
_TRIES = 100


class Reader(Protocol):
    """One half, readable: keys in ascending order."""

    def ids(self) -> Iterator[bytes]: ...
    def entries(self) -> Iterator[tuple[bytes, bytes]]: ...
    def sizes(self) -> Iterator[tuple[bytes, int]]: ...
    def get(self, key: bytes) -> bytes | None: ...
    def close(self) -> None: ...


def main() -> int:
    """Answer the request on standard input. Return 0 where an answer was given, whatever it says."""
    request = json.loads(_first_line(sys.stdin.fileno()))
    scratch = Path(request["scratch"])
    scratch.mkdir(mode=0o700)
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    _bound_memory(request["halves"])
    gc.disable()  # nothing here makes cycles, and looking for them takes time for each message
    answer = {"vet": _vet, "reconcile": _reconcile}.get(request["task"], _census)
    try:
        answer(request, scratch, _say)
    except errors.KumodrError as error:
        _say({"error": type(error).__name__, "what": error.what, "remedy": error.remedy})
    except MemoryError:
        _say({"error": "SpoolDamaged", "what": "reading the spool takes more memory than it may", "remedy": None})
    except Exception:  # noqa: BLE001 — the parent reports a bug, and not a damaged spool
        _say({"bug": traceback.format_exc()})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _first_line(descriptor: int) -> bytes:
    """Read without a buffer object: the thread that waits for the end must not hold its lock when this exits."""
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(descriptor, 1 << 20)):
        line += piece
    return line


def _say(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


def _end_with_parent(scratch: Path) -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    for _ in range(_TRIES):  # the other thread may be adding to it at this moment
        shutil.rmtree(scratch, ignore_errors=True)
        if not scratch.exists():
            break
    os._exit(1)


def _bound_memory(halves: Mapping[str, Any]) -> None:
    """Bound the address space by what reading needs at most: RocksDB holds the whole logs in memory."""
    logs = sum(
        size for half in halves.values() for name, _, size in half.get("files", ()) if str(name).endswith(".log")
    )
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _LEAST_MEMORY + 4 * logs
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _census(request: Mapping[str, Any], scratch: Path, say: Callable[[Mapping[str, Any]], None]) -> None:
    found = census.SpoolCensus()
    problems: list[str] = []
    name = ""
    try:
        sizes: dict[str, Iterator[tuple[bytes, int]]] = {}
        for name, half in request["halves"].items():
            if half["kind"] == "tally":
                sizes[name] = tallied(half["descriptor"], frozenset(map(bytes.fromhex, half["gone"])))
                continue
            reader, damage = open_half(half, scratch / name)
            problems += [f"{name}: {each}" for each in damage]
            # A live directory is walked to its end before the next half is begun: meta before data.
            sizes[name] = reader.sizes() if half["kind"] == "rocksdb" else _walked(reader, scratch / f"{name}.tally")
        found = census.count(*(_named(each, sizes[each]) for each in ("meta", "data")))
    except (errors.SpoolDamaged, errors.SpoolUnreadable) as error:
        problems.append(error.what if error.what.startswith(("meta: ", "data: ")) else f"{name}: {error.what}")
    if problems:
        found = replace(found, problem="; ".join(problems), unreadable=tuple(problems))
    say({"end": asdict(found)})


def _named(name: str, items: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Yield the same, and name the half where reading it fails."""
    try:
        yield from items
    except errors.SpoolDamaged as error:
        raise errors.SpoolDamaged(f"{name}: {error.what}") from error


def open_half(half: Mapping[str, Any], view: Path, share: int | None = None) -> tuple[Reader, tuple[str, ...]]:
    """Given how a half is described and where its view may be built, return what reads it, and damage of its logs.

    With a `share` (`share_of`) only those messages of a RocksDB half are read; its logs are checked by share 0.
    Raise SpoolDamaged, SpoolUnreadable, DiskFull.
    """
    if half["kind"] == "localdisk":
        return LocalReader(Path(half["path"])), ()
    if share is not None and share > 0:
        build(view, [ViewFile(*each) for each in half["files"]], _small(half))
        return RocksReader(view, share_of(share)), ()
    live = half["live"]
    needed = LiveFiles(frozenset(), frozenset(), 0 if live is None else live).holds
    check = LogCheck(needed)
    files = [ViewFile(*each) for each in half["files"]]
    build(view, files, _small(half), check.seen)
    damage = check.finish()
    if live is not None and not any(file.name.endswith(".log") and needed(file.name) for file in files):
        damage = (*damage, "the write-ahead log is missing: the newest messages may be lost")
    return RocksReader(view, share_of(share)), damage


def _small(half: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: base64.b64decode(data) for name, data in half["small"].items()}


def share_of(share: int | None) -> tuple[Range, ...]:
    """Given the number of a share, return its ranges of keys: every SHARES-th of as many stripes; None is everything.

    A key begins with the fast-running part of its time, so messages of a minute and more spread over the stripes.
    """
    if share is None:
        return ((None, None),)
    borders = [None, *(bytes([number * 256 // _STRIPES]) for number in range(1, _STRIPES)), None]
    return tuple(zip(borders[share::SHARES], borders[share + 1 :: SHARES], strict=False))


def tallied(descriptor: int, gone: frozenset[bytes] = frozenset()) -> Iterator[tuple[bytes, int]]:
    """Given a tally, yield its ids and sizes, but for messages that ended before they were read."""
    offset = 0
    while piece := os.pread(descriptor, TALLY.size * _RECORDS_AT_ONCE, offset):
        offset += len(piece)
        for key, size in TALLY.iter_unpack(piece):
            if key not in gone:
                yield key, size


def _walked(reader: Reader, path: Path) -> Iterator[tuple[bytes, int]]:
    with path.open("w+b") as tally:
        for key, size in reader.sizes():
            tally.write(TALLY.pack(key, size))
        tally.flush()
        return tallied(os.dup(tally.fileno()))


def _vet(request: Mapping[str, Any], scratch: Path, say: Callable[[Mapping[str, Any]], None]) -> None:
    from kumodr.spool.startup import Counts, what_would_happen

    now = datetime.fromisoformat(request["now"])
    age = timedelta(seconds=request["max_age"])
    counts = Counts()
    for finding in what_would_happen(request["halves"], scratch, now, age, counts, request.get("share")):
        say({"finding": asdict(finding)})
    say({"end": asdict(counts)})


def _reconcile(request: Mapping[str, Any], scratch: Path, say: Callable[[Mapping[str, Any]], None]) -> None:
    from kumodr.reconcile.reading import write_spooled

    say({"end": write_spooled(request, scratch)})


if __name__ == "__main__":
    code = main()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(code)  # without the interpreter's own end, for which the parent would wait
