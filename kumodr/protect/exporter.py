"""The figures as Prometheus reads them, on a port of this host. `docs/metrics.md` explains each name."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from kumodr import errors
from kumodr.clock import Clock, time_of_text
from kumodr.protect.figures import CAUSES, Board, why_not_running
from kumodr.vault.proofs import Result

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Proofs = Callable[[], Mapping[str, Result]]
"""The newest record of each level of verification (`shallow`, `deep`, `restore`) that found a point good."""


class Collector:
    """Given the board, by component how old its newest copy may be in seconds, and the proofs: the figures of the
    moment at which they are asked for.
    """

    def __init__(self, board: Board, clock: Clock, objectives: Mapping[str, float], proofs: Proofs) -> None:
        self._board = board
        self._clock = clock
        self._objectives = objectives
        self._proofs = proofs

    def collect(self) -> "Iterator[Metric]":
        """Yield every metric. What is not known has no sample."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now, figures = self._clock(), self._board.now

        def gauge(name: str, text: str, value: float | None) -> "Metric":
            return GaugeMetricFamily(f"kumodr_{name}", text, value=value)

        def counter(name: str, text: str, value: float) -> "Metric":
            return CounterMetricFamily(f"kumodr_{name}", text, value=value)

        def by(label: str, name: str, text: str, values: Mapping[str, float]) -> "Metric":
            found = GaugeMetricFamily(f"kumodr_{name}", text, labels=(label,))
            for each, value in sorted(values.items()):
                found.add_metric((each,), value)
            return found

        protected = figures.state == "protected" and why_not_running(figures, now) is None
        yield gauge("protected", "1 while the loop runs and the vault takes what the spool accepts, else 0", protected)
        last = time_of_text(figures.time).timestamp()
        yield gauge("last_round_timestamp_seconds", "when the last round of the loop ended", last)
        until = figures.recoverable_until
        age = (now - time_of_text(until)).total_seconds() if until else None
        yield gauge("recovery_point_age_seconds", "age of the newest state that the vault can give back", age)
        allowed = "how old the newest copy of a component may be, by the plan"
        yield by("component", "objective_seconds", allowed, self._objectives)
        at_risk = "messages read, not yet acknowledged by the vault"
        yield gauge("messages_at_risk", at_risk, figures.messages_at_risk)
        yield gauge("bytes_at_risk", "their bytes, and those of logs not read yet", figures.bytes_at_risk)
        yield gauge("backlog_bytes", "sealed bytes that wait on local disk", figures.backlog_bytes)
        yield gauge("round_seconds", "how long the last round of reading and sealing took", figures.round_seconds)
        taken = time_of_text(figures.base_taken).timestamp() if figures.base_taken else None
        yield gauge("last_base_timestamp_seconds", "when the base that carries the stream was taken", taken)
        yield gauge("stream_epoch", "the number of the run of segments without a gap", figures.epoch)
        newest = "the number, in its epoch, of the newest segment that the vault acknowledged"
        yield gauge("stream_segment", newest, figures.acknowledged)
        stored_bodies = "bodies that the mail server stored, as far as the vault acknowledged them"
        yield counter("accepted_messages", stored_bodies, figures.accepted_messages)
        yield counter("accepted_bytes", "bytes of these bodies", figures.accepted_bytes)
        yield counter("uploaded_bytes", "sealed bytes that the vault took, points and stream", figures.uploaded_bytes)
        yield counter("segments", "segments that the vault acknowledged", figures.segments)
        yield counter("vault_errors", "how often the vault did not take a segment", figures.vault_errors)
        rebases = CounterMetricFamily("kumodr_rebases", "new bases that became due, by cause", labels=("cause",))
        for cause in CAUSES:
            rebases.add_metric((cause,), figures.rebase_counts.get(cause, 0))
        yield rebases
        stored = {component: time_of_text(text).timestamp() for component, text in figures.components.items()}
        yield by("component", "last_stored_timestamp_seconds", "when a component was last part of a point", stored)
        proved = {level: each.time.timestamp() for level, each in self._proofs().items()}
        yield by("level", "last_verified_timestamp_seconds", "when a point was last proved good, by how", proved)


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
