"""Time as an argument: everything that asks for the time takes a `Clock`."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


def text_of_time(moment: datetime) -> str:
    """Given an aware time, return it as `2026-11-23T14:03:07.123456Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_of_text(text: str) -> datetime:
    """Given what `text_of_time` wrote, return the aware time. Raise ValueError where it is not one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.astimezone(UTC)
