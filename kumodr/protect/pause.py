"""How long to wait after something went wrong, longer each time that it does so again."""

import time
from collections.abc import Sequence


class Pause:
    """Given the seconds to wait after the first failure, the second, and so on; the last of them from then on."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self._seconds = seconds
        self._failures = 0
        self._until = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it is time to try."""
        return time.monotonic() >= self._until

    def begin(self) -> None:
        """Something went wrong once more."""
        self._failures += 1
        self._until = time.monotonic() + self._seconds[min(self._failures, len(self._seconds)) - 1]

    def forget(self) -> None:
        """It went well: the next failure is the first again."""
        self._failures = 0
