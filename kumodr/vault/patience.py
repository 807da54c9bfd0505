"""How often a request is tried again, and how long is waited in between: longer each time, and never in step."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True)
class Patience:
    """Up to `tries` repetitions, pauses from `first` seconds on, doubling up to `longest`, at most `total` seconds.

    The pauses are drawn at random, so that many hosts do not come back at once to a store that is just getting up.
    """

    tries: int = 6
    first: float = 0.2
    longest: float = 5.0
    total: float = 120.0

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to wait before each repetition."""
        for number in range(self.tries):
            most = min(self.longest, self.first * 2**number)
            yield random.uniform(most / 2, most)  # noqa: S311

    def config(self) -> dict[str, Any]:
        """Return the same for obstore, which repeats what changes nothing by itself."""
        return {
            "max_retries": self.tries,
            "backoff": {
                "init_backoff": timedelta(seconds=self.first),
                "max_backoff": timedelta(seconds=self.longest),
                "base": 2,
            },
            "retry_timeout": timedelta(seconds=self.total),
        }


ONCE: dict[str, Any] = {"max_retries": 0}
"""For obstore: not again by itself."""
