"""The process that stores a point for the loop: `python -m kumodr.protect.child`.

A base may take minutes, memory and a core: the loop goes on meanwhile, in a process of its own. The first line of
standard input is the request, and the answers are JSON lines on standard output. For a base that a stream goes on from,
`{"held": …}` is said when the spool is stored, with the file of its ids where the loop needs them (`listed.py`), and
the answer, a line `{"whole": N}`, is waited for before the point is committed. It ends with its parent: standard input
is its lease.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import system_clock, text_of_time
from kumodr.components.registry import component
from kumodr.plan.load import load_plan
from kumodr.protect.base import in_order, take_base
from kumodr.protect.listed import Listed, is_of_files
from kumodr.vault.backup import begin_backup
from kumodr.vault.facts import StreamJoin
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import open_vault

_NICENESS = 5


def main() -> int:
    """Answer the request on standard input. Return 0 where a point was committed."""
    lines = Lines(sys.stdin.fileno())
    request = lines.next()
    os.nice(_NICENESS)
    try:
        _say(_store(request, lines))
    except errors.KumodrError as error:
        _say({"error": {"name": type(error).__name__, "what": error.what, "remedy": error.remedy}})
        return errors.FAILED
    return errors.DONE


class Lines:
    """Lines of a descriptor, read on a thread that ends the process when the descriptor does."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._found: list[bytes] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any]:
        """Return the next line's document; waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._found)
            return json.loads(self._found.pop(0))

    def _read(self) -> None:
        held = b""
        while piece := os.read(self._descriptor, 1 << 16):
            *whole, held = (held + piece).split(b"\n")
            with self._changed:
                self._found += whole
                self._changed.notify_all()
        os._exit(errors.INTERRUPTED)


def _store(request: Mapping[str, Any], lines: Lines) -> dict[str, Any]:
    plan = load_plan(request["plan"])
    names = in_order(request["components"])
    vault = open_vault(plan.vault)
    state = Path(plan.state)
    joined, spool = request.get("stream"), plan.components.spool
    listed = Listed() if joined is not None and spool is not None and is_of_files(spool) else None

    def join() -> StreamJoin | None:
        if joined is None:
            return None
        _say({"held": text_of_time(system_clock()), "listed": str(listed.write(state)) if listed else None})
        return StreamJoin(joined["epoch"], joined["begin"], int(lines.next()["whole"]))

    with begin_backup(vault, NodeKey.load_or_create(state, plan.site), state, system_clock, _silent) as session:
        parts = [component(name, plan, system_clock) for name in names]
        base = take_base(session, parts, join, listed.of if listed else lambda capture: capture)
        point = base.point
        return {
            "point": point.id,
            "taken": text_of_time(point.taken),
            "stored_bytes": session.stored_bytes,
            "sections": {each.component: each.size for each in point.sections},
            "failures": {name: str(error) for name, error in base.failures.items()},
        }


def _silent(_what: str, _done: int, _total: int) -> None:
    return


def _say(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
