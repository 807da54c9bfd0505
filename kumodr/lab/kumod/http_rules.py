"""Endpoints of suspensions and bounces."""

import json
import time
from typing import Any

from aiohttp import web

from kumodr.lab.kumod.message import QueueUnknown
from kumodr.lab.kumod.node import Node
from kumodr.lab.kumod.rules import Rule, Rules, duration_text


def add_rule_routes(app: web.Application, node: Node) -> None:
    """Add the endpoints to an application."""
    kinds = (("suspend", node.suspensions), ("suspend-ready-q", node.ready_suspensions), ("bounce", node.bounces))
    for name, rules in kinds:
        path = f"/api/admin/{name}/v1"
        app.router.add_post(path, _adder(node, name, rules))
        app.router.add_get(path, _lister(name, rules))
        app.router.add_delete(path, _remover(rules))


def _adder(node: Node, name: str, rules: Rules) -> Any:
    async def add(request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
            if name == "suspend-ready-q":
                body = {**body, "queue_names": [body["name"]]}
            rule = rules.add(body)
        except (KeyError, ValueError, TypeError) as error:
            text = (
                f"Failed to deserialize the JSON body into the target type: missing field `{str(error).strip(chr(39))}`"
            )
            return web.Response(text=text, status=422)
        if name != "bounce":
            return web.json_response({"id": rule.id})
        node.spawn(_bounce_queued(node, rule))
        return web.json_response({"id": rule.id, "bounced": {}, "total_bounced": 0})

    return add


async def _bounce_queued(node: Node, rule: Rule) -> None:
    for message in list(node.queued.values()):
        try:
            queue = message.queue()
        except QueueUnknown:
            continue
        if rule.matches(queue) and node.queued.get(message.key) is message:
            node.bounce(message, queue, rule)


def _lister(name: str, rules: Rules) -> Any:
    async def listed(_request: web.Request) -> web.Response:
        found: list[dict[str, Any]] = []
        for rule in rules.active():
            left = duration_text(max(0.001, rule.ends - time.monotonic()))
            if name == "suspend-ready-q":
                document: dict[str, Any] = {"id": rule.id, "name": rule.queue_names[0], "reason": rule.reason}
                found.append({**document, "duration": left})
                continue
            keys = ("campaign", "tenant", "domain") + (("routing_domain",) if name == "bounce" else ())
            document = {"id": rule.id, **{key: rule.criteria.get(key) for key in keys}}
            document |= {"reason": rule.reason, "duration": left}
            if name == "bounce":
                document |= {"bounced": rule.bounced, "total_bounced": sum(rule.bounced.values())}
            found.append(document)
        return web.json_response(found)

    return listed


def _remover(rules: Rules) -> Any:
    async def remove(request: web.Request) -> web.Response:
        rule_id = str(json.loads(await request.read()).get("id"))
        if rules.remove(rule_id):
            return web.Response(text=f"removed {rule_id}")
        return web.Response(text=f"rule {rule_id} not found", status=404)

    return remove
