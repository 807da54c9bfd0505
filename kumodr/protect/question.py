"""A question to the vault on a thread of its own: an answer that does not come keeps nobody from going on.

When the loop starts, the spool's logs are held at once, and the vault is asked whether the epoch may go on. While no
answer comes reading goes on all the same, and what is sealed waits, on disk where it must: nothing of it is shipped, no
base is begun and nothing is called protected before the vault confirmed it. Where it does not, a new epoch begins, as
if it had been asked first. A new epoch reads nothing before its number is known: until then nothing carries it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from kumodr import errors
from kumodr.protect.shipper import MEANWHILE

_PATIENCE = 0.5

Answer = TypeVar("Answer")


class Question(Generic[Answer]):
    """Given what is to be asked, ask it at once, and again after a pause where the vault says an error.

    `pauses` are the seconds before each next time. A call that hangs is left behind with its thread.
    """

    def __init__(self, ask: Callable[[], Answer], pauses: Sequence[float]) -> None:
        self._ask = ask
        self._pauses = pauses
        self._asked = time.monotonic()
        self._over = threading.Event()
        self._answers: list[Answer] = []
        self._failure: Exception | None = None
        self._erred = False
        self.trouble: str | None = "the vault does not answer"
        """Why there is no answer."""
        threading.Thread(target=self._run, name="kumodr-ask", daemon=True).start()

    @property
    def is_late(self) -> bool:
        """Whether the answer takes so long that it is not worth waiting for: nearly always it is there at once."""
        return time.monotonic() >= self._asked + _PATIENCE

    def answer(self, meanwhile: Callable[[], None]) -> Answer | None:
        """Return the answer, None where there is none yet. Raise what asking raised, but for errors of the vault.

        Until it is late, or the vault said an error, it is waited for; `meanwhile` is called again and again then.
        """
        while not self._over.wait(0.0 if self.is_late or self._erred else MEANWHILE):
            if self.is_late or self._erred:
                return None
            meanwhile()
        if self._failure is not None:
            raise self._failure
        return self._answers[0]

    def _run(self) -> None:
        times = 0
        while not self._over.is_set():
            try:
                self._answers.append(self._ask())
            except errors.KumodrError as error:
                self.trouble, self._erred = str(error), True
                self._over.wait(self._pauses[min(times, len(self._pauses) - 1)])
                times += 1
                continue
            except Exception as error:  # noqa: BLE001 — whoever waits for the answer gets it
                self._failure = error
            self._over.set()

    def forget(self) -> None:
        """Nobody wants to know any more."""
        self._over.set()
