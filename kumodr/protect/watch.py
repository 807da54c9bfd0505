"""Tell when configuration changed, within seconds: the plan's paths, watched by the kernel."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

_LOOK_AGAIN_MS = 10_000


def watch(paths: Sequence[str], changed: Callable[[], None], stop: threading.Event) -> threading.Thread:
    """Given paths, call `changed` on a thread whenever something in them changed, until `stop` is set.

    Paths that do not exist yet are looked for every ten seconds, and their coming is a change.
    """
    thread = threading.Thread(target=_run, args=(tuple(map(Path, paths)), changed, stop), name="kumodr-watch")
    thread.daemon = True
    thread.start()
    return thread


def _run(paths: Sequence[Path], changed: Callable[[], None], stop: threading.Event) -> None:
    import watchfiles

    there = _existing(paths)
    while not stop.is_set():
        if not there:
            stop.wait(_LOOK_AGAIN_MS / 1000)
        else:
            try:
                for changes in watchfiles.watch(
                    *there, stop_event=stop, rust_timeout=_LOOK_AGAIN_MS, yield_on_timeout=True, raise_interrupt=False
                ):
                    if changes:
                        changed()
                    if _existing(paths) != there:
                        break
            except (OSError, RuntimeError):
                stop.wait(_LOOK_AGAIN_MS / 1000)
        found = _existing(paths)
        if found != there and not stop.is_set():
            changed()
        there = found


def _existing(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.exists())
