"""Endpoints that look at queued messages and move them."""

import json
from typing import Any

from aiohttp import web

from kumodr.lab.kumod import transfer
from kumodr.lab.kumod.message import Message, QueueUnknown, loaded
from kumodr.lab.kumod.node import XFER, Node
from kumodr.lab.kumod.records import Response, time_text
from kumodr.lab.kumod.rules import CRITERIA, duration_text, parts_of


def add_queue_routes(app: web.Application, node: Node) -> None:
    """Add the endpoints to an application."""

    async def inspect_message(request: web.Request) -> web.Response:
        text = request.query.get("id", "")
        try:
            key = bytes.fromhex(text)
        except ValueError:
            return web.Response(text=f"Failed to deserialize query string: invalid id {text}", status=400)
        assert node.meta is not None and node.data is not None  # noqa: S101 — spools are open
        raw = node.meta.get(key)
        if raw is None:
            return web.Response(text=f"Error: no such key {text}", status=500)
        body = node.data.get(key) if request.query.get("want_body") == "true" else None
        document = _message(loaded(key, raw))
        if body is not None:
            document["data"] = body.decode("utf-8", "replace")
        return web.json_response({"id": text, "message": document})

    async def inspect_queue(request: web.Request) -> web.Response:
        name = request.query.get("queue_name", "")
        found = [message for message in node.queued.values() if _queue(message) == name]
        if not found:
            return web.Response(text=f"Error: no such queue {name}", status=404)
        limit = int(request.query.get("limit", len(found)))
        messages = [
            {
                "id": each.id,
                "message": {**_message(each), "data": None, "due": time_text(each.due), "num_attempts": each.attempts},
            }
            for each in found[:limit]
        ]
        now = time_text(node.now_ns())
        answer = {
            "queue_name": name,
            "messages": messages,
            "num_scheduled": len(found),
            "queue_config": {
                "max_age": duration_text(node.config.max_age),
                "retry_interval": duration_text(node.config.retry_interval),
            },
            "delayed_metric": len(found),
            "now": now,
            "last_changed": now,
        }
        return web.json_response(answer)

    async def rebind(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        for message in _matching(node, body):
            before = message.queue()
            changes = {str(key): str(value) for key, value in (body.get("data") or {}).items()}
            if changes:
                message.meta = dict(sorted({**message.meta, **changes}.items()))
                node.save(message, message.body)
            if message.meta.get("queue") == "null":
                node.remove(message)
                continue
            if not body.get("suppress_logging"):
                text = f"Rebound from {before} to {message.queue()}: {body.get('reason')}"
                node.log_record("AdminRebind", message, Response(250, text), site="")
            node.insert(message, node.now_ns() if body.get("always_flush") or changes else message.due)
        return web.json_response({})

    async def xfer(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        for message in _matching(node, body):
            if not message.queue().endswith(XFER):
                transfer.rebind_to_transfer(node, message, str(body["target"]))
        return web.json_response({})

    async def xfer_cancel(request: web.Request) -> web.Response:
        name = str(json.loads(await request.read())["queue_name"])
        found = [message for message in node.queued.values() if _queue(message) == name]
        if not found:
            return web.Response(text=f"Error: no such queue {name}", status=404)
        for message in found:
            info = message.meta.get("xfer_queue_info") or {}
            rest = {key: value for key, value in message.meta.items() if key not in ("queue", "xfer_queue_info")}
            message.meta = rest | ({"queue": info["queue"]} if info.get("queue") else {})
            node.save(message)
            node.insert(message, node.now_ns())
        return web.json_response({})

    async def ready_states(_request: web.Request) -> web.Response:
        return web.json_response({"states_by_ready_queue": {}})

    app.router.add_get("/api/admin/inspect-message/v1", inspect_message)
    app.router.add_get("/api/admin/inspect-sched-q/v1", inspect_queue)
    app.router.add_get("/api/admin/ready-q-states/v1", ready_states)
    app.router.add_post("/api/admin/rebind/v1", rebind)
    app.router.add_post("/api/admin/xfer/v1", xfer)
    app.router.add_post("/api/admin/xfer/cancel/v1", xfer_cancel)


def _message(message: Message) -> dict[str, Any]:
    recipient: Any = message.recipients[0] if len(message.recipients) == 1 else message.recipients
    document: dict[str, Any] = {"sender": message.sender, "recipient": recipient, "meta": message.meta}
    return document | ({"scheduling": message.schedule} if message.schedule else {})


def _queue(message: Message) -> str | None:
    try:
        return message.queue()
    except QueueUnknown:
        return None


def _matching(node: Node, body: dict[str, Any]) -> list[Message]:
    wanted = {key: body[key] for key in CRITERIA if body.get(key) is not None}
    names = body.get("queue_names") or []
    found: list[Message] = []
    for message in node.queued.values():
        queue = _queue(message)
        if queue is None:
            continue
        parts = parts_of(queue)
        if queue in names if names else all(parts.get(key) == value for key, value in wanted.items()):
            found.append(message)
    return found
