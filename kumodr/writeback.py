"""Begin to bring written bytes to the disk at once, so that making them durable at the end has less to wait for."""

import functools
from collections.abc import Callable
from typing import Any

_WRITE = 2


def begin_writing(descriptor: int, at: int, size: int) -> None:
    """Given a range of a file that was written, let the kernel begin. Whether it does changes nothing but the time."""
    begin = _function()
    if begin is not None and size:
        begin(descriptor, at, size, _WRITE)


@functools.cache
def _function() -> Callable[[int, int, int, int], Any] | None:
    import ctypes

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function
