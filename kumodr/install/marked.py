"""Files that kumodr writes outside its own folders: each says so in its first line (a script in its second), with a
hash of what follows.

So a file that somebody else wrote is never written over or removed, nor is one of ours that was edited since.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Literal

_MARK = re.compile(rb"(?:#![^\n]*\n)?# Written by `kumodr install`; sha256 of all lines below: ([0-9a-f]{64})\n")
_LARGEST = 1 << 20

Standing = Literal["new", "same", "changed", "edited", "foreign"]
"""How a path stands against a text: nothing there; already so; ours and another text; ours but edited; not ours."""


def marked(text: str, *, before: str = "") -> bytes:
    """Given a file's text, and a line that must come first, return its bytes with the line that says who wrote it."""
    body = text.encode()
    return f"{before}# Written by `kumodr install`; sha256 of all lines below: {_digest(body)}\n".encode() + body


def standing(path: Path, wanted: bytes | None = None) -> Standing:
    """Given a path, and the bytes that shall be there (None: whatever we wrote), say how it stands.

    What cannot be read, and what is no plain file, counts as foreign.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = file.read(_LARGEST)
    except FileNotFoundError:
        return "new"
    except OSError:
        return "foreign"
    mark = _MARK.match(found)
    if mark is None:
        return "foreign"
    if mark[1].decode() != _digest(found[mark.end() :]):
        return "edited"
    return "same" if wanted is None or found == wanted else "changed"


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
