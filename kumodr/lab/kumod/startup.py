"""Reading the spool at start, with everything that KumoMTA destroys on the way (facts §2.3)."""

import asyncio
import os
import signal
import sys
import time

from kumodr.lab.kumod.ids import created_ns
from kumodr.lab.kumod.message import MetadataUnreadable, QueueUnknown, loaded
from kumodr.lab.kumod.node import Node
from kumodr.lab.kumod.records import Response

_AT_ONCE = 500


async def enumerate_spool(node: Node, start_ns: int) -> None:
    """Given a node with open spools, load every message of meta; each is due at once. Mail is accepted meanwhile."""
    begun = time.monotonic()
    count = 0
    node.started = True
    assert node.meta is not None  # noqa: S101 — spools are open
    entries = node.meta.entries()
    while True:
        try:
            entry = next(entries, None)
        except Exception:  # noqa: BLE001 — as in kumod, an error ends the enumeration, and latches
            node.latch()
            break
        if entry is None:
            break
        key, raw = entry
        if len(key) != 16:
            break
        count += 1
        load_one(node, key, raw, start_ns)
        if count % _AT_ONCE == 0:
            await asyncio.sleep(0)
    took = max(1e-9, time.monotonic() - begun)
    _say(f"start_spool: enumeration done, spooled in {count} msgs over {took:.3f}s {count / took:.0f}/s")
    _say("initialization complete")


def load_one(node: Node, key: bytes, raw: bytes | None, start_ns: int) -> None:
    """Given an entry of meta, queue its message, or do to it what KumoMTA does."""
    made = created_ns(key)
    if made is None:
        _say("thread 'spoolin' panicked at crates/spool/src/spool_id.rs: called `Option::unwrap()` on a `None` value")
        os.kill(os.getpid(), signal.SIGQUIT)
        return
    if made >= start_ns or key in node.queued:
        return
    if raw is None:
        _destroy(node, key)
        return
    try:
        message = loaded(key, raw)
    except MetadataUnreadable:
        _say(f"Failed to parse metadata for {key.hex()}")
        _destroy(node, key)
        return
    try:
        message.queue()
    except QueueUnknown as error:
        _say(f"failed to compute queue name!: {error}!?. Removing message from the spool.")
        text = f"KumoMTA internal: failed to compute queue name: {error}"
        node.log_record("Expiration", message, Response(551, text), site="localhost")
        _destroy(node, key)
        return
    now = node.now_ns()
    due = max(now, message.scheduled_from())
    if not node.expire(message, due, now):
        node.insert(message, due)


def _destroy(node: Node, key: bytes) -> None:
    assert node.meta is not None and node.data is not None  # noqa: S101 — spools are open
    node.data.remove(key)
    node.meta.remove(key)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
