"""Text files of a site: bounded, regular, really text. They may be anything, a device or a loop of links too."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

LARGEST = 1 << 20


def read_text(path: Path) -> tuple[str, str | None]:
    """Given a file, return its text and None, or an empty text and the reason why it cannot be read. Never blocks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        return "", str(error.strerror)
    except ValueError:
        return "", "its name is no path"
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return "", "it is no file"
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        return "", "it is larger than 1 MiB"
    if b"\0" in data or data.startswith(b"\x1bLua"):
        return "", "it is no text"
    return data.decode("utf-8", "replace"), None


def there(path: Path | None) -> bool:
    """Whether a path leads to a file, as far as this user may see."""
    try:
        return path is not None and path.is_file()
    except OSError:
        return False


def variables_in(text: str) -> Mapping[str, str]:
    """Given the text of an environment file, as systemd and compose read it, return its variables."""
    found: dict[str, str] = {}
    for line in text.replace("\\\n", "").splitlines():
        name, mark, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not mark or not name or name[0] in "#;":
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found
