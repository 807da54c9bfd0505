"""Numbered names that a listing may not have yet.

Some stores list late: what was put a moment ago can be read, and is not listed. Numbers have no gaps, so it is enough
to ask for the one behind the newest that is listed, until it is not there.
"""

from collections.abc import Callable

from kumodr.vault.store import Store


def newest_number(store: Store, name_of: Callable[[int], str], listed: int) -> int:
    """Given how numbers are named and the newest that is listed (0: none), return the newest that is there."""
    while store.size(name_of(listed + 1)) is not None:
        listed += 1
    return listed
