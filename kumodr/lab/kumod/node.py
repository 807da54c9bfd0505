"""The server's core: accept, queue, deliver, remove; in the order that facts §2 gives."""

import asyncio
import contextlib
import heapq
import itertools
import os
import random
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from kumodr.lab.kumod.config import Config
from kumodr.lab.kumod.ids import IdMaker, mac_of_host
from kumodr.lab.kumod.logfile import SegmentLog
from kumodr.lab.kumod.message import Message, QueueUnknown
from kumodr.lab.kumod.metrics import Metrics
from kumodr.lab.kumod.records import Peer, Response, record
from kumodr.lab.kumod.rules import Rules, duration_text, parts_of
from kumodr.lab.kumod.smtp_out import Attempt, Connection, Unreachable
from kumodr.lab.kumod.store import Half, open_half

XFER = ".xfer.kumomta.internal"
SECOND = 10**9
UNLATCH = 300 * SECOND
"""How long after the last error of a spool the server goes on as if nothing had been (facts §2.4)."""


class Node:
    """One running stand-in."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._chance = random.Random(config.seed) if config.seed is not None else random.Random()
        mac = bytes.fromhex(config.mac.replace(":", "")) if config.mac else mac_of_host(self._seeded())
        self.ids = IdMaker(mac, self._chance)
        self.nodeid = self._node_id()
        self.online_since = self.now_ns()
        self.suspensions = Rules(self._chance)
        self.ready_suspensions = Rules(self._chance)
        self.bounces = Rules(self._chance)
        self.metrics = Metrics(self._collect)
        self.log = SegmentLog(Path(config.logs), config.max_file_size, config.max_segment_duration, self.now_ns)
        self.meta: Half | None = None
        self.data: Half | None = None
        self.started = False
        self.stopping = False
        self._latched_until = 0
        self.queued: dict[bytes, Message] = {}
        self._due: list[tuple[int, int, Message]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._ready: asyncio.Queue[Message] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()

    def now_ns(self) -> int:
        """The node's clock, in ns since 1970."""
        return time.time_ns() + int(self.config.clock_offset * SECOND)

    def new_id(self) -> bytes:
        """Return the id of a message that comes now."""
        return self.ids.make(self.now_ns())

    def new_uuid(self) -> str:
        """Return a random UUID, seeded where the node is."""
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def open_spools(self) -> None:
        """Open both halves, as define_spool does, data first."""
        self.data = open_half(self.config.data, self.config.kind, self.config.write_buffer_size)
        self.meta = open_half(self.config.meta, self.config.kind, self.config.write_buffer_size)

    def why_not_accepting(self) -> str | None:
        """Return why no mail is taken now, or None."""
        if self.stopping:
            return "shutting down"
        if self.latched():
            return "the spool is not accepting writes"
        return None if self.started else "waiting for spool startup"

    def latch(self) -> None:
        """After an error of a spool: take no mail, and deliver none, for some minutes."""
        self._latched_until = self.now_ns() + UNLATCH

    def latched(self) -> bool:
        """Say whether a spool failed a short time ago."""
        return self.now_ns() < self._latched_until

    def accept(
        self, message: Message, body: bytes, peer: Peer | None, response: Response, kind: str = "Reception"
    ) -> None:
        """Given a new message: save, log, queue. Only then may it be acknowledged."""
        deferred = self.config.deferred_spool and kind == "Reception"
        if deferred:
            message.saved, message.body = False, body
        elif message.meta.get("queue") != "null":
            self.save(message, body)
        self.log_record(kind, message, response, peer=peer, protocol="xfer" if kind == "XferIn" else None)
        service = "esmtp_listener" if message.meta.get("reception_protocol") == "ESMTP" else "http_listener"
        self.metrics.add("total_messages_received", service)
        if message.meta.get("queue") != "null":
            self.insert(message, max(self.now_ns(), message.scheduled_from()))

    def save(self, message: Message, body: bytes | None = None) -> None:
        """Write the body, then the metadata."""
        assert self.meta is not None and self.data is not None  # noqa: S101 — spools are open
        if body is not None:
            self.data.put(message.key, body)
        self.meta.put(message.key, message.stored())
        message.saved, message.body = True, None

    def remove(self, message: Message) -> None:
        """Remove the body, then the metadata."""
        assert self.meta is not None and self.data is not None  # noqa: S101 — spools are open
        self.queued.pop(message.key, None)
        self.data.remove(message.key)
        self.meta.remove(message.key)

    def insert(self, message: Message, due: int) -> None:
        """Put a message into its scheduled queue, due at a time."""
        self.queued[message.key] = message
        message.due = due
        heapq.heappush(self._due, (due, next(self._order), message))
        self._wake.set()

    def log_record(self, kind: str, message: Message, response: Response, **more: Any) -> None:
        """Hand a record to the log."""
        self.log.write(record(kind, message, response, self.now_ns(), self.nodeid, **more))

    def run(self) -> None:
        """Begin to deliver."""
        self.spawn(self._schedule())
        for _ in range(self.config.connections):
            self.spawn(self._dispatch())

    def spawn(self, work: Any) -> None:
        """Run something beside everything else until it ends or the node stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Graceful shutdown: deferred messages are saved, logs finished, spools closed without a flush (facts §6)."""
        self.stopping = True
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for message in self.queued.values():
            if not message.saved:
                self.save(message, message.body)
        self.log.finish()
        for half in (self.meta, self.data):
            if half is not None:
                half.close()
        sys.stderr.write("Shutdown completed OK!\n")

    async def _schedule(self) -> None:
        while True:
            now = self.now_ns()
            while self._due and self._due[0][0] <= now:
                due, _, message = heapq.heappop(self._due)
                if self.queued.get(message.key) is message and message.due == due:
                    self._ready.put_nowait(message)
            self._wake.clear()
            wait = (self._due[0][0] - now) / SECOND if self._due else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _dispatch(self) -> None:
        connection = Connection(self.config.sink, self.config.hostname, self.new_uuid())
        try:
            while True:
                if self._ready.empty() and connection.open:
                    try:
                        message = await asyncio.wait_for(self._ready.get(), 1)
                    except TimeoutError:
                        await connection.close()
                        continue
                else:
                    message = await self._ready.get()
                await self._attempt(message, connection)
        finally:
            await connection.close()

    async def _attempt(self, message: Message, connection: Connection) -> None:
        if self.queued.get(message.key) is not message:
            return
        if self.latched():
            self.insert(message, self._latched_until)
            return
        queue = message.queue()
        bounce = self.bounces.matching(queue)
        if bounce is not None:
            self.bounce(message, queue, bounce)
            return
        suspended = self.suspensions.matching(queue)
        if suspended is not None:
            self._failed(message, Response(451, f"KumoMTA internal: suspended: {suspended.reason}"), None, None)
            return
        if queue.endswith(XFER):
            from kumodr.lab.kumod.transfer import push

            await push(self, message, queue)
            return
        assert self.data is not None  # noqa: S101 — spools are open
        try:
            body = message.body if not message.saved else self.data.get(message.key)
        except Exception as error:  # noqa: BLE001 — the binding raises nothing more special
            self.latch()
            self._failed(message, Response(400, f"KumoMTA internal: error in deliver_message: {error}"), None, None)
            return
        if body is None:
            text = f"KumoMTA internal: error in deliver_message: no such key {message.id}"
            self._failed(message, Response(400, text), None, None)
            return
        message.size = len(body)
        try:
            self._settle(message, await connection.deliver(message.sender, message.recipients, body))
        except Unreachable as error:
            self._failed(message, Response(400, f"KumoMTA internal: {error}"), None, None)

    def _settle(self, message: Message, attempt: Attempt) -> None:
        """Log what became of each recipient; remove the message, or keep it for those who are left."""
        site = attempt.peer.site
        for kind, metric, part in (
            ("Delivery", "total_messages_delivered", attempt.accepted),
            ("Bounce", "total_messages_fail", attempt.refused),
        ):
            if part is not None:
                self.log_record(kind, message, part[1], peer=attempt.peer, recipients=part[0], protocol="ESMTP")
                self.metrics.add(metric, "smtp_client")
                self.metrics.add(metric, f"smtp_client:{site}")
        if attempt.deferred is None:
            self.remove(message)
            return
        trimmed = attempt.deferred[0] != message.recipients
        message.recipients = attempt.deferred[0]
        self._failed(message, attempt.deferred[1], attempt.peer, "ESMTP", save=trimmed)

    def _failed(
        self, message: Message, response: Response, peer: Peer | None, protocol: str | None, *, save: bool = False
    ) -> None:
        """Log a transient failure and queue the message again, or expire it."""
        self.log_record("TransientFailure", message, response, peer=peer, protocol=protocol)
        self.metrics.add("total_messages_transfail", "smtp_client")
        if not message.saved or save:
            self.save(message, message.body)
        message.attempts += 1
        due = self.now_ns() + self._delay(message.attempts)
        if not self.expire(message, due):
            self.insert(message, max(due, message.scheduled_from()))

    def expire(self, message: Message, due: int, at: int | None = None) -> bool:
        """Given when a message would next be tried, expire it where that is too late; say whether it was.

        At start its age counts as of then (`at`), so that a message scheduled for a later time stays.
        """
        age = (due if at is None else at) - message.created
        limit = self.config.max_age * SECOND
        expires = message.expires()
        if age < limit and (not expires or due < expires):
            return False
        text = (
            f"Next delivery time would be {duration_text(age / SECOND)} after creation, "
            f"which exceeds max_age={duration_text(self.config.max_age)}"
        )
        self.log_record("Expiration", message, Response(551, text, (5, 4, 7)), site="")
        self.remove(message)
        return True

    def bounce(self, message: Message, queue: str, rule: Any) -> None:
        """Bounce a message by an administrator's rule."""
        if not rule.suppress_logging:
            response = Response(551, f"Administrator bounced with reason: {rule.reason}", (5, 7, 1))
            self.log_record("AdminBounce", message, response, site="localhost")
        rule.bounced[queue] = rule.bounced.get(queue, 0) + 1
        self.remove(message)

    def _delay(self, attempts: int) -> int:
        delay = self.config.retry_interval * 2 ** min(attempts - 1, 20)
        return int(min(delay, self.config.max_retry_interval or delay) * SECOND)

    def _seeded(self) -> random.Random | None:
        return self._chance if self.config.seed is not None else None

    def _node_id(self) -> str:
        if given := os.environ.get("KUMO_NODE_ID"):
            return given
        path = Path(self.config.nodeid_path)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.new_uuid())
        return path.read_text().strip()

    def _collect(self, metrics: Metrics) -> None:
        metrics.set("message_count", len(self.queued))
        metrics.set("memory_usage", _resident())
        metrics.set("ready_count", self._ready.qsize(), "smtp_client")
        metrics.set("connection_count", 0, "esmtp_listener")
        for name in ("scheduled_count", "scheduled_by_domain", "scheduled_by_tenant"):
            metrics.clear(name)
        counts: dict[str, int] = {}
        for message in self.queued.values():
            with contextlib.suppress(QueueUnknown):
                queue = message.queue()
                counts[queue] = counts.get(queue, 0) + 1
        for queue, count in counts.items():
            metrics.set("scheduled_count", count, queue)
            for name, part in (("scheduled_by_domain", "domain"), ("scheduled_by_tenant", "tenant")):
                if part in (parts := parts_of(queue)):
                    metrics.add(name, parts[part], count)
        if counts or self.started:
            metrics.set("scheduled_count_total", sum(counts.values()))
            metrics.set("scheduled_queue_count", len(counts))
        for name, path in (("data spool", self.config.data), ("meta spool", self.config.meta)):
            with contextlib.suppress(OSError):
                space = os.statvfs(path)
                metrics.set("disk_free_bytes", space.f_bavail * space.f_frsize, name)
                metrics.set("disk_free_percent", space.f_bavail * 100 // max(1, space.f_blocks), name)
                metrics.set("disk_free_inodes", space.f_favail, name)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
