"""Reception by SMTP: aiosmtpd, one message id for each recipient, answered as kumod answers."""

import base64
import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from kumodr.lab.kumod.message import Message
from kumodr.lab.kumod.records import Peer, Response

if TYPE_CHECKING:
    from kumodr.lab.kumod.node import Node

_LARGEST = 32 << 20


class Reception:
    """aiosmtpd's handler: hands every message to the node."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    async def handle_RCPT(  # noqa: N802 — aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        refusal = self._node.why_not_accepting()
        if refusal is not None:
            return f"421 4.3.2 {refusal}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        refusal = self._node.why_not_accepting()
        if refusal is not None:
            return f"421 4.3.2 {refusal}"
        content: Any = envelope.content
        peer = session.peer or ("", 0)
        here = self._node.config.smtp
        meta = {
            "ehlo_domain": session.host_name or "",
            "hostname": self._node.config.hostname,
            "received_from": f"{peer[0]}:{peer[1]}",
            "received_via": here,
            "reception_protocol": "ESMTP",
        }
        if not hasattr(session, "kumo_session"):
            session.kumo_session = self._node.new_uuid()  # pyright: ignore[reportAttributeAccessIssue] # aiosmtpd's way
        received = Peer(session.host_name or "", str(peer[0]), session=getattr(session, "kumo_session", None))
        ids: list[str] = []
        for recipient in envelope.rcpt_tos:
            message = accepted(self._node, envelope.mail_from or "", [recipient], content, meta, received)
            ids.append(message.id)
        return f"250 OK ids={','.join(ids)} {ids[0]}" if len(ids) == 1 else f"250 OK ids={','.join(ids)}"


def accepted(
    node: "Node", sender: str, recipients: list[str], content: bytes, meta: dict[str, Any], peer: Peer
) -> Message:
    """Given a received message, add the trace headers, save it, log it, queue it, and return it."""
    message = Message(node.new_id(), sender, recipients, dict(meta))
    body = trace_headers(node, message, peer) + content
    message.size = len(body)
    head = content[: content.find(b"\r\n\r\n") + 2]
    for name, key in ((b"x-tenant", "tenant"), (b"x-campaign", "campaign")):
        value = header(head, name)
        if value is not None:
            message.meta[key] = value
    subject = header(head, b"subject")
    message.headers = {"Subject": subject} if subject is not None else {}
    message.meta = dict(sorted(message.meta.items()))
    node.accept(message, body, peer, Response(250, ""))
    return message


def trace_headers(node: "Node", message: Message, peer: Peer) -> bytes:
    """Return the headers that kumod puts in front of what it receives."""
    recipient = message.recipients[0]
    reference = base64.b64encode(json.dumps({"_@_": "\\_/", "recipient": recipient}, separators=(",", ":")).encode())
    moment = format_datetime(datetime.fromtimestamp(message.created // 10**9, UTC))
    return (
        b"X-KumoRef: " + reference + b"\r\n"
        + f"Received: from {peer.name} ({peer.address})\r\n"
        f"  by {node.config.hostname} (KumoMTA {node.config.smtp.partition(':')[0]}) \r\n"
        f"  with {message.meta['reception_protocol']} id {message.id} for <{recipient}>;\r\n"
        f"  {moment}\r\n".encode()
    )  # fmt: skip


def header(head: bytes, name: bytes) -> str | None:
    """Given the header block and a lower-case name, return the value's first line, or None."""
    lowered = head.lower()
    at = 0 if lowered.startswith(name + b":") else lowered.find(b"\n" + name + b":") + 1
    if at == 0 and not lowered.startswith(name + b":"):
        return None
    return head[at + len(name) + 1 : head.find(b"\r\n", at)].strip().decode("utf-8", "replace")


def protocol(node: "Node") -> SMTP:
    """Return a protocol for one incoming connection."""
    node.metrics.add("total_connection_count", "esmtp_listener")
    return SMTP(
        Reception(node),
        data_size_limit=_LARGEST,
        enable_SMTPUTF8=True,
        hostname=node.config.hostname,
        ident="KumoMTA",
        timeout=300,
        command_call_limit=1_000_000,
    )
