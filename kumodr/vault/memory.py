"""Keep memory that was freed, for the next object.

The C library gives large blocks back to the kernel at once, and every page of the next one is faulted in anew: measured
as half of the time of a restore. Objects are at most a few megabytes and few are open at a time, so what is kept is
bounded by what was in use at once.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENAS = -8
_LARGEST_BLOCK = 32 << 20
"""The most that every version of the C library takes."""


def keep_freed_memory() -> None:
    """Tell the C library, where it is one that can be told, not to give blocks back to the kernel."""
    setting = _function("mallopt")
    if setting is not None:
        setting(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        setting(_TRIM_THRESHOLD, 1 << 30)
        setting(_ARENAS, 1)  # or each thread keeps what it freed from the others


def give_back_freed_memory() -> None:
    """Give the kernel what was kept, when the last object is done."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


@contextmanager
def freed_memory_kept() -> Generator[None]:
    """Keep what is freed as long as objects are being worked on."""
    keep_freed_memory()
    try:
        yield
    finally:
        give_back_freed_memory()


def _function(name: str) -> Any:
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)
