"""The HTTP interface: the endpoints that kumodr and its users need, with kumod's answers (its OpenAPI file)."""

import gzip
import json
import os
import platform
import socket
import zlib
from typing import Any

from aiohttp import web

from kumodr.lab.kumod import transfer
from kumodr.lab.kumod.http_queues import add_queue_routes
from kumodr.lab.kumod.http_rules import add_rule_routes
from kumodr.lab.kumod.node import Node
from kumodr.lab.kumod.records import Peer, time_text
from kumodr.lab.kumod.smtp_in import accepted

_LARGEST_INJECT = 2 << 20
_LARGEST = 64 << 20
VERSION = "2026.08.04-standin"


def application(node: Node) -> web.Application:
    """Given a node, return its HTTP interface."""

    async def liveness(_request: web.Request) -> web.Response:
        refusal = node.why_not_accepting()
        return web.Response(text="OK" if refusal is None else refusal, status=200 if refusal is None else 503)

    async def machine_info(_request: web.Request) -> web.Response:
        return web.json_response(_machine(node))

    async def metrics_text(request: web.Request) -> web.Response:
        return web.Response(text=node.metrics.text(request.query.get("prefix", "")))

    async def metrics_json(_request: web.Request) -> web.Response:
        return web.json_response(node.metrics.document())

    async def inject(request: web.Request) -> web.Response:
        refusal = node.why_not_accepting()
        if refusal is not None:
            return web.Response(text=refusal, status=503)
        return _inject(node, await request.read(), request.remote or "")

    async def xfer_inject(request: web.Request) -> web.Response:
        payload = await request.read()
        if payload.startswith(b"\x1f\x8b"):
            payload = gzip.decompress(payload)
        try:
            return web.json_response({"id": transfer.take(node, payload, request.remote or "")})
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            return web.Response(text=f"Error: {error}", status=500)

    async def compact(request: web.Request) -> web.Response:
        name = (await request.json())["name"]
        half = {"meta": node.meta, "data": node.data}.get(name)
        if half is None:
            return web.Response(text=f"Error: no such spool {name}", status=500)
        half.compact()
        return web.Response()

    async def nothing(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=_LARGEST)
    app.router.add_get("/api/check-liveness/v1", liveness)
    app.router.add_get("/api/machine-info", machine_info)
    app.router.add_get("/metrics", metrics_text)
    app.router.add_get("/metrics.json", metrics_json)
    app.router.add_post("/api/inject/v1", inject)
    app.router.add_post("/api/xfer/inject/v1", xfer_inject)
    app.router.add_post("/api/admin/spool-compact/v1", compact)
    app.router.add_post("/api/admin/bump-config-epoch", nothing)
    add_rule_routes(app, node)
    add_queue_routes(app, node)
    return app


def _inject(node: Node, text: bytes, peer: str) -> web.Response:
    try:
        body: dict[str, Any] = json.loads(text)
    except ValueError as error:
        return web.Response(text=f"Failed to parse the request body as JSON: {error}", status=400)
    for key in ("envelope_sender", "recipients", "content"):
        if key not in body:
            text_ = f"Failed to deserialize the JSON body into the target type: missing field `{key}`"
            return web.Response(text=f"{text_} at line 1 column {len(text)}", status=422)
    if len(text) > _LARGEST_INJECT:
        return web.Response(text="Failed to buffer the request body: length limit exceeded", status=413)
    content = body["content"]
    raw = content if isinstance(content, str) else _built(content)
    raw = raw.replace("\r\n", "\n").replace("\n", "\r\n")
    failed: list[str] = []
    errors: list[str] = []
    meta = {"http_auth": peer, "hostname": node.config.hostname, "received_from": peer, "reception_protocol": "HTTP"}
    for recipient in body["recipients"]:
        address = str(recipient.get("email", ""))
        if "@" not in address:
            failed.append(address)
            errors.append(f"{address}: invalid address")
            continue
        accepted(node, str(body["envelope_sender"]), [address], raw.encode(), meta, Peer("", peer))
    count = len(body["recipients"]) - len(failed)
    answer = {"success_count": count, "fail_count": len(failed), "failed_recipients": failed, "errors": errors}
    return web.json_response(answer)


def _built(content: dict[str, Any]) -> str:
    """Given a builder's content, return a plain message of it."""
    headers = {"From": content.get("from"), "Subject": content.get("subject"), **(content.get("headers") or {})}
    lines = [f"{name}: {value}" for name, value in headers.items() if isinstance(value, str)]
    return "\n".join([*lines, "", str(content.get("text_body") or content.get("html_body") or ""), ""])


def _machine(node: Node) -> dict[str, Any]:
    return {
        "node_id": node.nodeid,
        "hostname": socket.gethostname(),
        "mac_address": ":".join(f"{each:02X}" for each in node.ids.mac),
        "num_cores": os.cpu_count() or 1,
        "kernel_version": platform.release(),
        "platform": f"linux/{platform.machine()}",
        "distribution": "debian",
        "os_version": "Linux",
        "total_memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "container_runtime": None,
        "cpu_brand": platform.processor() or "unknown",
        "fingerprint": f"node_id={node.nodeid}",
        "online_since": time_text(node.online_since),
        "process_kind": "kumod",
        "version": VERSION,
    }
