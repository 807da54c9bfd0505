"""When which components are stored as points, beside the stream: bases when one is due, the others on their intervals.

One child process at a time does it (`child.py`), and a base comes first. What failed is tried again after a pause.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kumodr.clock import Clock, text_of_time, time_of_text
from kumodr.components.registry import configured
from kumodr.plan.model import Plan
from kumodr.protect.errand import Errand, Wanted
from kumodr.protect.figures import Board
from kumodr.protect.listed import taken_in
from kumodr.protect.progress import BaseFacts
from kumodr.protect.stream import Stream

WITH_THE_BASE = ("spool", "logs", "ledger")
_RETRY = 15.0
_LONGEST_RETRY = 300.0
_PLANNED = ("age", "outgrown")
"""Causes of a new base that do not begin a new epoch, and are not noted with one."""


class Points:
    """Given the stream that bases are for. `step` again and again; `close` at the end."""

    def __init__(
        self, plan_file: Path, plan: Plan, stream: Stream, board: Board, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self._plan_file = plan_file
        self._stream = stream
        self._board = board
        self._clock = clock
        self._say = say
        have = configured(plan)
        self._of_base = tuple(name for name in WITH_THE_BASE if name in have)
        protect = plan.protect
        every = {
            "config": protect.config_every,
            "redis": protect.redis_every,
            "prometheus": protect.prometheus_every,
            "images": protect.images_every,
        }
        self._every = {name: every[name] for name in have if name in every}
        self._changed: set[str] = set()
        self._errand: Errand | None = None
        self._epoch = 0
        self._not_before: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def note_change(self, component: str) -> None:
        """Given a component that changed, store it soon."""
        self._changed.add(component)

    def step(self) -> None:
        """Look at the child that runs, or start the next one that is due."""
        if self._errand is None:
            self._start()
        else:
            self._look(self._errand)

    def close(self) -> None:
        """End the child that runs; what it did not commit does not count."""
        if self._errand is not None:
            self._errand.close()
            self._errand = None

    @property
    def busy(self) -> bool:
        """Whether a child runs."""
        return self._errand is not None

    def _start(self) -> None:
        now = time.monotonic()
        due = self._stream.base_due()
        if due is not None and due.epoch != self._epoch:
            self._epoch = due.epoch
            self._forgive("base")
        if due is not None and now >= self._not_before.get("base", 0.0):
            if due.cause in _PLANNED:
                self._board.note_rebase(text_of_time(self._clock()), due.cause, due.reason)
                self._say(f"a new base is due: {due.reason}")
            self._send(Wanted(self._of_base, due.epoch, due.begin))
            return
        wanted = tuple(name for name in self._every if self._is_due(name) and now >= self._not_before.get(name, 0.0))
        if wanted:
            self._changed -= set(wanted)
            self._send(Wanted(wanted))

    def _send(self, wanted: Wanted) -> None:
        try:
            self._errand = Errand(self._plan_file, wanted)
        except OSError as error:
            self._failed(wanted, f"no process can be started for it: {error.strerror}")

    def _is_due(self, name: str) -> bool:
        stored = self._board.now.components.get(name)
        if stored is None or name in self._changed:
            return True
        return (self._clock() - time_of_text(stored)).total_seconds() >= self._every[name]

    def _look(self, errand: Errand) -> None:
        wanted = errand.wanted
        number = self._stream.number_of_next_round(wanted.epoch) if wanted.epoch is not None else None
        if wanted.epoch is not None and number is None:
            self.close()
            return
        for answer in errand.answers():
            if "held" in answer and number is not None:
                try:
                    self._stream.expect(taken_in(Path(answer["listed"])) if answer["listed"] else ())
                except OSError as error:
                    self._failed(wanted, f"the ids that the base holds cannot be read: {error.strerror}")
                    self.close()
                    return
                errand.answer_held(number)
            elif "point" in answer:
                self._stored(errand, answer)
                self.close()
            elif "error" in answer:
                self._failed(wanted, str(answer["error"]["what"]))
                self.close()

    def _stored(self, errand: Errand, answer: Mapping[str, Any]) -> None:
        wanted, failures = errand.wanted, answer["failures"]
        stored = dict.fromkeys(answer["sections"], answer["taken"])
        self._board.update(
            components={**self._board.now.components, **stored},
            uploaded_bytes=self._board.now.uploaded_bytes + answer["stored_bytes"],
        )
        if wanted.epoch is not None and "spool" in stored and errand.whole is not None:
            size = int(answer["sections"]["spool"])
            base = BaseFacts(str(answer["point"]), str(answer["taken"]), size, errand.whole)
            self._stream.base_stored(wanted.epoch, base)
            self._forgive("base")
        self._say(f"{answer['point']} stored: {', '.join(stored)}")
        for name in stored:
            self._failures.pop(name, None)
        for name, sentence in failures.items():
            self._postpone("base" if name == "spool" else name, sentence)

    def _forgive(self, name: str) -> None:
        """Do not wait any longer on account of tries that failed: another epoch has not been tried yet."""
        self._failures.pop(name, None)
        self._not_before.pop(name, None)

    def _failed(self, wanted: Wanted, what: str) -> None:
        for name in ("base",) if wanted.is_base else wanted.components:
            self._postpone(name, what)

    def _postpone(self, name: str, what: str) -> None:
        self._failures[name] = self._failures.get(name, 0) + 1
        pause = min(_RETRY * 2 ** (self._failures[name] - 1), _LONGEST_RETRY)
        self._not_before[name] = time.monotonic() + pause
        if name in self._every:
            self._changed.add(name)
        self._say(f"{name} not stored: {what}; the next try is in {pause:.0f} s")
