"""Messages of a spool as one line each, chosen by queue, domain, tenant or sender."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from kumodr.spool.identifier import created
from kumodr.spool.metadata import Metadata, MetadataUnreadable, QueueUnknown, domain_of, parse, queue_name
from kumodr.spool.reader import Spool


@dataclass(frozen=True)
class Listed:
    """One message. What could not be read is empty, and `problem` says why."""

    id: str
    created: datetime | None
    sender: str = ""
    recipients: tuple[str, ...] = ()
    queue: str = ""
    tenant: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Choice:
    """What a message must have to be listed; None asks for nothing. `domain` is of any recipient."""

    domain: str | None = None
    tenant: str | None = None
    queue: str | None = None
    sender: str | None = None

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        return self != Choice()

    def takes(self, message: Listed) -> bool:
        """Given a message, say whether it has what is asked for. Addresses and domains are compared without case."""
        domains = {domain_of(each).lower() for each in message.recipients}
        return (
            (self.domain is None or self.domain.lower() in domains)
            and (self.tenant is None or self.tenant == message.tenant)
            and (self.queue is None or self.queue == message.queue)
            and (self.sender is None or self.sender.lower() == message.sender.lower())
        )


def listing(spool: Spool, choice: Choice) -> Iterator[Listed]:
    """Given an open spool, yield the messages that are chosen, in order of id. Raise SpoolDamaged."""
    return filter(choice.takes, (listed(identifier, raw) for identifier, raw in spool.entries()))


def listed(identifier: str, raw: bytes) -> Listed:
    """Given an id and its metadata as stored, return its line; never raises for what a message holds."""
    made = created(bytes.fromhex(identifier))
    try:
        metadata = parse(raw)
    except MetadataUnreadable as error:
        return Listed(identifier, made, problem=f"metadata cannot be parsed: {error}")
    queue, problem = _queue(metadata)
    tenant = metadata.meta.get("tenant")
    return Listed(
        id=identifier,
        created=made,
        sender=metadata.sender,
        recipients=metadata.recipients,
        queue=queue,
        tenant=tenant if isinstance(tenant, str) else "",
        problem=problem,
    )


def _queue(metadata: Metadata) -> tuple[str, str | None]:
    try:
        return queue_name(metadata), None
    except QueueUnknown as error:
        return "", f"queue cannot be computed: {error}"
