"""Take recipients off a message's metadata, leaving every other byte as it is stored."""

import json
from collections.abc import Sequence

from kumodr.spool.metadata import MetadataUnreadable, parse

_SPACE = " \t\n\r"


def with_recipients(raw: bytes, recipients: Sequence[str]) -> bytes:
    """Given metadata as stored and the recipients that are to be left, return it with these.

    One recipient becomes a text, several a list, as KumoMTA writes them; every other byte stays. Raise
    MetadataUnreadable where it cannot be parsed, and ValueError where a recipient is not among those it has.
    """
    before = parse(raw)
    if not recipients or not set(recipients) <= set(before.recipients):
        raise ValueError("recipients can be taken off only")
    text = raw.decode("utf-8")
    begin, end = _value_of(text, "recipient")
    value: str | list[str] = recipients[0] if len(recipients) == 1 else list(recipients)
    changed = text[:begin] + json.dumps(value, ensure_ascii=False, separators=(",", ":")) + text[end:]
    new = changed.encode("utf-8")
    after = parse(new)
    if after.recipients != tuple(recipients) or (after.sender, after.meta, after.schedule) != (
        before.sender,
        before.meta,
        before.schedule,
    ):
        raise MetadataUnreadable("changing its recipients would change more")
    return new


def _value_of(text: str, wanted: str) -> tuple[int, int]:
    """Return where the value of a key of the outermost object begins and ends. The text is known to be an object."""
    decoder = json.JSONDecoder()
    at = _behind_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        begin = _behind_space(text, _behind_space(text, at) + 1)
        _, at = decoder.raw_decode(text, begin)
        if key == wanted:
            return begin, at
        at = _behind_space(text, at)
        at = _behind_space(text, at + 1) if text[at] == "," else at
    raise MetadataUnreadable(f"{wanted} is missing")


def _behind_space(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
