"""A message in memory, and the metadata of it that is on disk."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kumodr.lab.kumod.ids import created_ns
from kumodr.spool.metadata import MetadataUnreadable, QueueUnknown, parse, queue_name


@dataclass
class Message:
    """One message. `due` is in ns since 1970 and not persisted, and neither are `attempts`; `size` 0 where unknown."""

    key: bytes
    sender: str
    recipients: list[str]
    meta: dict[str, Any]
    schedule: dict[str, Any] | None = None
    attempts: int = 0
    due: int = 0
    size: int = 0
    headers: dict[str, Any] = field(default_factory=dict[str, Any])
    body: bytes | None = None
    saved: bool = True

    @property
    def id(self) -> str:
        """The id in hexadecimal."""
        return self.key.hex()

    @property
    def created(self) -> int:
        """When the id was made, in ns since 1970."""
        return created_ns(self.key) or 0

    def stored(self) -> bytes:
        """Return the metadata as KumoMTA stores it: compact JSON, one recipient as a bare text."""
        recipient = self.recipients[0] if len(self.recipients) == 1 else self.recipients
        document = {"sender": self.sender, "recipient": recipient, "meta": self.meta, "schedule": self.schedule}
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    def queue(self) -> str:
        """Return the scheduled queue's name. Raise QueueUnknown."""
        return queue_of(self.recipients, self.meta)

    def scheduled_from(self) -> int:
        """Return the time before which the message is not attempted, in ns since 1970; 0 where there is none."""
        return _moment(self.schedule, "first_attempt")

    def expires(self) -> int:
        """Return the message's own expiry time in ns since 1970; 0 where there is none."""
        return _moment(self.schedule, "expires")


def loaded(key: bytes, raw: bytes) -> Message:
    """Given an id and what is stored as its metadata, return the message. Raise MetadataUnreadable."""
    metadata = parse(raw)
    document = json.loads(raw)
    return Message(key, metadata.sender, list(metadata.recipients), document["meta"], document.get("schedule"))


def queue_of(recipients: list[str], meta: dict[str, Any]) -> str:
    """Given recipients and metadata, return the queue's name. Raise QueueUnknown."""
    from kumodr.spool.metadata import Metadata

    return queue_name(Metadata("", tuple(recipients), meta, None))


def _moment(schedule: dict[str, Any] | None, key: str) -> int:
    value = (schedule or {}).get(key)
    return int(datetime.fromisoformat(value).timestamp() * 1e9) if value else 0


__all__ = ["Message", "MetadataUnreadable", "QueueUnknown", "loaded", "queue_of"]
