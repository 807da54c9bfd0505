"""Moving mail between nodes (facts §8): pushing what waits for a transfer, taking what another node pushes."""

import gzip
import json
from typing import TYPE_CHECKING, Any

from kumodr.lab.kumod.ids import of_transfer
from kumodr.lab.kumod.message import Message
from kumodr.lab.kumod.records import Peer, Response, time_text

if TYPE_CHECKING:
    from kumodr.lab.kumod.node import Node

_TIMEOUT = 60
_LARGEST = 64 << 20


def rebind_to_transfer(node: "Node", message: Message, target: str) -> None:
    """Given a queued message, put it into the queue of its transfer and save that."""
    before = message.queue()
    info = {
        "queue": message.meta.get("queue"),
        "tenant": message.meta.get("tenant"),
        "campaign": message.meta.get("campaign"),
        "routing_domain": message.meta.get("routing_domain"),
        "schedule": message.schedule,
        "num_attempts": message.attempts,
        "due": time_text(message.due),
    }
    queue = f"{target.rstrip('/')}/.xfer.kumomta.internal"
    message.meta = {**message.meta, "queue": queue, "xfer_queue_info": info}
    node.save(message)
    response = Response(250, f"Rebound from {before} to {queue}: {queue}")
    node.log_record("AdminRebind", message, response, site="")
    node.insert(message, node.now_ns())


async def push(node: "Node", message: Message, queue: str) -> None:
    """Given a message in the queue of a transfer, push it once; remove it when the target has it."""
    import aiohttp

    assert node.data is not None  # noqa: S101 — spools are open
    body = node.data.get(message.key) or b""
    meta = {key: value for key, value in message.meta.items() if key != "queue"}
    head = {"id": message.id, "sender": message.sender, "recipient": message.recipients, "meta": meta}
    payload = gzip.compress(json.dumps(head).encode() + b"\n" + body)
    target = queue.removesuffix("/.xfer.kumomta.internal")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT)) as session,
            session.post(f"{target}/api/xfer/inject/v1", data=payload, headers={"Content-Encoding": "gzip"}) as answer,
        ):
            text = (await answer.read())[:10_000]
            new_id = json.loads(text)["id"] if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
        new_id = None
    if new_id is None:
        message.attempts += 1
        node.insert(message, node.now_ns() + 10 * 10**9)
        return
    response = Response(250, f"new id is {new_id}")
    node.log_record("XferOut", message, response, protocol="xfer", site=f"unspecified->{queue}@xfer")
    node.remove(message)


def take(node: "Node", payload: bytes, peer: str) -> str:
    """Given what a node pushes (a line of JSON, then the body), keep its time and metadata; return the new id.

    A repeat overwrites what is on disk and queues the message once more, as KumoMTA does. Raise ValueError, KeyError.
    """
    line, _, body = payload[:_LARGEST].partition(b"\n")
    head: dict[str, Any] = json.loads(line)
    info: Any = head["meta"]["xfer_queue_info"]
    if not isinstance(info, dict):
        raise ValueError("xfer_queue_info is not an object")
    prior = bytes.fromhex(head["id"])
    meta = {key: value for key, value in head["meta"].items() if key not in ("xfer_queue_info", "queue")}
    meta |= {key: info[key] for key in ("queue", "tenant", "campaign", "routing_domain") if info.get(key)}
    meta |= {"xfer_prior_id": head["id"], "xfer_from": peer}
    message = Message(
        of_transfer(prior, node.ids.mac), head["sender"], list(head["recipient"]), meta, info.get("schedule")
    )
    message.attempts = int(info.get("num_attempts") or 0)
    message.size = len(body)
    node.accept(message, body, Peer("", peer.partition(":")[0]), Response(250, ""), kind="XferIn")
    return message.id
