"""Does a store keep its word? Asked once, when a vault or a copy of one begins: everything relies on put-if-absent.

The numbers of a node's chain, of its stream, of marks and of records are given by it: where two writers can both
believe that they have a number, one of them loses a point, and a prune may delete what a backup relies on. A store that
does not know the condition often takes the put all the same, and replaces what is there without a word. So it is tried.
"""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

from kumodr import errors
from kumodr.vault.store import Store

PREFIX = "probe/"
_WRITERS = 6


def why_unconditional(store: Store) -> str | None:
    """Given a store, return why its put-if-absent is none, or None where it is one. Raise the store's errors.

    What was put for it is deleted again; where that is not allowed a few bytes stay below `probe/`, which mean nothing.
    """
    name = f"{PREFIX}{secrets.token_hex(8)}"
    try:
        if not store.put_if_absent(f"{name}-one", [b"first"]):
            return "it says that a new name exists already"
        if store.get(f"{name}-one", 16) != b"first":
            return "it does not give back what was put"
        if store.put_if_absent(f"{name}-one", [b"second"]):
            return "it takes a second object under the same name"
        if store.get(f"{name}-one", 16) != b"first":
            return "it refuses a second object under the same name, and replaces the first all the same"
        return _race(store, f"{name}-many")
    except errors.StoreUnconditional as error:
        return error.what
    finally:
        _remove(store, [f"{name}-one", f"{name}-many"])


def _race(store: Store, name: str) -> str | None:
    gate = threading.Barrier(_WRITERS)

    def put(number: int) -> bool:
        gate.wait()
        return store.put_if_absent(name, [b"%d" % number])

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="kumodr-probe") as pool:
        won = [number for number, each in enumerate(pool.map(put, range(_WRITERS))) if each]
    if len(won) != 1:
        return f"of {_WRITERS} writers of one name at the same time {len(won)} are told that it is theirs"
    if store.get(name, 16) != b"%d" % won[0]:
        return "of several writers of one name it keeps another's object than that of the one it told so"
    return None


def _remove(store: Store, names: list[str]) -> None:
    try:
        store.delete(names)
    except errors.KumodrError:
        return
