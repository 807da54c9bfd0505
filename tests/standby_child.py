"""Restore, or follow or promote a standby, and die by SIGKILL at the N-th step.

`standby_child.py VAULT KEY DIR N restore|follow|promote`
"""

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from kumodr.components.registry import vetter
from kumodr.recover import standbyfile
from kumodr.recover.choose import choose_state
from kumodr.recover.promote import promote, was_promoted
from kumodr.recover.restore import restore
from kumodr.recover.standby import Standby
from kumodr.vault.keys import load_identities
from kumodr.vault.open import open_vault
from kumodr.vault.points import survey

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
left = int(sys.argv[4])


def counting(function):
    """Return the function, dying before its call where it is the N-th step."""

    def counted(*words, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*words, **named)

    return counted


for name in ("rename", "fsync", "unlink", "pwrite", "mkdir", "rmdir", "ftruncate", "utime"):
    setattr(os, name, counting(getattr(os, name)))
vault, identities, target = open_vault(sys.argv[1]), load_identities(sys.argv[2], {}), Path(sys.argv[3])
if sys.argv[5] == "restore":
    state = choose_state(vault, survey(vault, {}).points, {})
    vetters = {each.section.component: vetter(each.section.component, lambda: START) for each in state.chosen}
    restore(vault, state, identities, target, vetters, clock=lambda: START, progress=lambda *_: None)
    sys.exit(0)
if was_promoted(target):
    sys.exit(0)
with standbyfile.locked(target):
    if (standing := standbyfile.load(target)) is None or not standing.promoting:
        standby = Standby(vault, identities, target, lambda: START, lambda *_: None)
        standby.catch_up()
        standby.close()
    if sys.argv[5] == "promote":
        promote(target, {name: vetter(name, lambda: START) for name in ("spool", "logs")}, lambda: START)
