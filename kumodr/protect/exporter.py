"""The figures as Prometheus reads them, on a port of this host. `docs/metrics.md` explains each name."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from kumodr import errors
from kumodr.clock import Clock, time_of_text
from kumodr.protect.figures import Board

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Proofs = Callable[[], "dict[str, datetime]"]
"""When the newest point of each level of verification was proved: `shallow`, `deep`, `restore`."""


class Collector:
    """Given the board, the figures of the moment at which they are asked for."""

    def __init__(self, board: Board, clock: Clock, proofs: Proofs) -> None:
        self._board = board
        self._clock = clock
        self._proofs = proofs

    def collect(self) -> "Iterator[Metric]":
        """Yield every metric."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now, figures = self._clock(), self._board.now

        def gauge(name: str, text: str, value: float) -> "Metric":
            return GaugeMetricFamily(f"kumodr_{name}", text, value=value)

        def counter(name: str, text: str, value: float) -> "Metric":
            return CounterMetricFamily(f"kumodr_{name}", text, value=value)

        yield gauge("protected", "1 while the vault takes what the spool accepts, else 0", figures.state == "protected")
        last = time_of_text(figures.time).timestamp()
        yield gauge("last_round_timestamp_seconds", "when the last round of the loop ended", last)
        if figures.recoverable_until:
            age = (now - time_of_text(figures.recoverable_until)).total_seconds()
            yield gauge("recovery_point_age_seconds", "age of the newest state that the vault can give back", age)
        yield gauge("messages_at_risk", "messages read, not yet acknowledged by the vault", figures.messages_at_risk)
        yield gauge("bytes_at_risk", "their bytes, and those of logs not read yet", figures.bytes_at_risk)
        yield gauge("backlog_bytes", "sealed bytes that wait on local disk", figures.backlog_bytes)
        yield gauge("round_seconds", "how long the last round of reading and sealing took", figures.round_seconds)
        if figures.base_taken:
            taken = time_of_text(figures.base_taken).timestamp()
            yield gauge("last_base_timestamp_seconds", "when the newest base was taken", taken)
        stored_bodies = "bodies that the mail server stored, as far as the vault acknowledged them"
        yield counter("accepted_messages", stored_bodies, figures.accepted_messages)
        yield counter("accepted_bytes", "bytes of these bodies", figures.accepted_bytes)
        yield counter("uploaded_bytes", "sealed bytes that the vault took, points and stream", figures.uploaded_bytes)
        yield counter("segments", "segments that the vault acknowledged", figures.segments)
        yield counter("vault_errors", "how often the vault did not take a segment", figures.vault_errors)
        rebases = CounterMetricFamily("kumodr_rebases", "new bases, by cause", labels=("cause",))
        for cause, count in sorted(figures.rebase_counts.items()):
            rebases.add_metric((cause,), count)
        yield rebases
        stored = GaugeMetricFamily(
            "kumodr_last_stored_timestamp_seconds", "when a component was last stored", labels=("component",)
        )
        for component, text in sorted(figures.components.items()):
            stored.add_metric((component,), time_of_text(text).timestamp())
        yield stored
        proved = GaugeMetricFamily(
            "kumodr_last_verified_timestamp_seconds", "when a point was last proved good, by how", labels=("level",)
        )
        for level, moment in sorted(self._proofs().items()):
            proved.add_metric((level,), moment.timestamp())
        yield proved


def serve(address: str, collector: Collector) -> tuple[WSGIServer, threading.Thread]:
    """Given HOST:PORT, serve the figures there until the server is shut down. Raise UsageWrong."""
    from prometheus_client import CollectorRegistry, start_http_server

    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(collector)  # pyright: ignore[reportArgumentType]
    try:
        return start_http_server(int(port), host or "127.0.0.1", registry)
    except (OSError, ValueError, OverflowError) as error:
        raise errors.UsageWrong(
            f"the figures cannot be served at {address}: {getattr(error, 'strerror', None) or error}",
            remedy="correct protect.metrics in kumodr.yaml: HOST:PORT, a port that is free",
        ) from error
