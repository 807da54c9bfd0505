"""A limit on how long something may take, whatever it hangs in."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from types import FrameType


class TookTooLong(BaseException):
    """Raised in the midst of what took longer than it may. No `except Exception` on the way holds it up."""


@contextmanager
def limited(seconds: float) -> Generator[Callable[[], float]]:
    """Given seconds, run the block and break it off with TookTooLong when they are over; give what is left of them.

    By the timer signal, which interrupts a system call; in the main thread of the process only, which is where a
    signal arrives. Elsewhere nothing is broken off, and what waits has to look at what is left.
    """
    ends = monotonic() + seconds

    def left() -> float:
        return max(0.0, ends - monotonic())

    if threading.current_thread() is not threading.main_thread():
        yield left
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    previous = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield left
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
