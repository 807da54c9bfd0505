"""Log records with kumod's fields, in kumod's order (crates/kumo-log-types/src/lib.rs)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kumodr.lab.kumod.message import Message, QueueUnknown


@dataclass(frozen=True)
class Response:
    """What a peer said, or what KumoMTA says in its place. `enhanced` is (class, subject, detail)."""

    code: int
    content: str
    enhanced: tuple[int, int, int] | None = None
    command: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it as a log record holds it."""
        names = ("class", "subject", "detail")
        enhanced = dict(zip(names, self.enhanced, strict=True)) if self.enhanced else None
        return {"code": self.code, "enhanced_code": enhanced, "content": self.content, "command": self.command}


@dataclass(frozen=True)
class Peer:
    """The other side of a connection, and for deliveries what else is known of it."""

    name: str
    address: str
    site: str = ""
    session: str | None = None
    source: str | None = None


def record(
    kind: str,
    message: Message,
    response: Response,
    now_ns: int,
    nodeid: str,
    *,
    peer: Peer | None = None,
    recipients: list[str] | None = None,
    protocol: str | None = None,
    site: str | None = None,
    session: str | None = None,
) -> dict[str, Any]:
    """Given what happened to a message, return the record. `recipients` are those concerned (default: all)."""
    concerned = message.recipients if recipients is None else recipients
    outbound = peer is not None and peer.source is not None
    try:
        queue = message.queue()
    except QueueUnknown:
        queue = ""
    created = message.created
    document: dict[str, Any] = {
        "type": kind,
        "id": message.id,
        "sender": message.sender,
        "recipient": concerned[0] if len(concerned) == 1 else concerned,
        "queue": queue,
        "site": site if site is not None else peer.site if peer else "",
        "size": message.size,
        "response": response.document(),
        "peer_address": {"name": peer.name, "addr": peer.address} if peer else None,
        "timestamp": now_ns // 10**9,
        "event_time": time_text(now_ns),
        "created": created // 10**9,
        "created_time": time_text(created),
        "num_attempts": message.attempts,
        "bounce_classification": "Uncategorized",
        "egress_pool": "unspecified" if outbound else None,
        "egress_source": "unspecified" if outbound else None,
        "source_address": {"address": peer.source} if peer and peer.source else None,
        "feedback_report": None,
        "meta": {},
        "headers": message.headers,
        "delivery_protocol": protocol,
        "reception_protocol": message.meta.get("reception_protocol"),
        "nodeid": nodeid,
    }
    session = session or (peer.session if peer else None)
    return document | ({"session_id": session} if session else {})


def time_text(nanoseconds: int) -> str:
    """Given ns since 1970, return RFC 3339 with nanoseconds, as kumod writes it; far times with a sign."""
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    except (ValueError, OverflowError, OSError):
        return f"+{1970 + seconds // 31556952}-01-01T00:00:00.{rest:09d}Z"
