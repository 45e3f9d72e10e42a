"""Figures of the stream for Prometheus, which fetches them from ``http://HOST:PORT/metrics``.

edgead_frames_total{part, decision}     frames with a verdict, decision "good" or "reject"; with a trigger parts
edgead_withheld_frames_total            frames without a verdict that were late, or had no finite score or map; with a
                                        trigger parts without a verdict
edgead_missed_triggers_total            triggers that came while too many waited
edgead_latency_seconds                  histogram: frame in hand to decision, with a trigger from the trigger on
edgead_age_seconds                      histogram: capture to decision; cameras only
edgead_share_of_threshold               score of the latest frame as a share of the threshold
edgead_state{edgead_state}              1 for the state of the stream, 0 for the other states
edgead_cause{cause}                     1 for each cause of the state, such as "drift"
edgead_sink_written_total{sink}         events that a sink has taken
edgead_sink_lost_total{sink}            events that a sink has lost
edgead_sink_replaced_total{sink}        verdicts that a newer one has replaced at a sink of the newest state
edgead_sink_failing{sink}               1 while a sink fails or does not answer, otherwise 0
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgead.errors import SinkError, needs_extra
from edgead.streaming.record import Record
from edgead.streaming.servers import LOCAL_HOST, read_listener
from edgead.streaming.sinks.base import Plan, RecordSink, SinkCount
from edgead.streaming.state import STATES
from edgead.streaming.web_server import POLL_S, BoundedHandler, BoundedServer

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_EXAMPLE = "give prometheus:PORT, which this machine alone can read, or prometheus:0.0.0.0:PORT"


class Prometheus(RecordSink):
    """A web server with the figures of the stream.

    Args:
        host: Address of this machine to listen on.
        port: TCP port.

    Raises:
        MissingExtraError: prometheus-client is not installed.
        SinkError: The port is in use or not allowed.
    """

    def __init__(self, host: str, port: int) -> None:
        with needs_extra("prometheus", "a sink prometheus:"):
            from prometheus_client import (
                CollectorRegistry,
                Counter,
                Enum,
                Gauge,
                Histogram,
                MetricsHandler,
            )
        registry = CollectorRegistry()
        self._counts: Callable[[], Sequence[SinkCount]] = tuple
        self._frames = Counter(
            "edgead_frames", "Frames or parts with a verdict", ("part", "decision"), registry=registry
        )
        self._withheld = Counter(
            "edgead_withheld_frames", "Frames or parts without a verdict", registry=registry
        )
        self._missed = Counter(
            "edgead_missed_triggers", "Triggers that came while too many waited", registry=registry
        )
        self._latency = Histogram(
            "edgead_latency_seconds", "Frame or trigger to decision", buckets=_BUCKETS_S, registry=registry
        )
        self._age = Histogram(
            "edgead_age_seconds", "Capture to decision", buckets=_BUCKETS_S, registry=registry
        )
        self._share = Gauge(
            "edgead_share_of_threshold", "Score by threshold, latest frame", registry=registry
        )
        self._causes = Gauge("edgead_cause", "Causes of the state", ("cause",), registry=registry)
        self._state = Enum("edgead_state", "State of the stream", states=STATES, registry=registry)
        registry.register(_SinkCollector(lambda: self._counts()))
        handler = type("Handler", (BoundedHandler, MetricsHandler), {"registry": registry})
        try:
            self._server = BoundedServer((host, port), handler)
        except (OSError, OverflowError, TypeError, ValueError) as error:
            # Errors of all but the first kind come from a name that no host can have.
            raise SinkError(f"cannot listen on {host}:{port} ({error})", hint=_EXAMPLE) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="edgead-prometheus-server", daemon=True
        )
        self._thread.start()
        self._is_open = True

    def show_counts(self, counts: Callable[[], Sequence[SinkCount]]) -> None:
        """Publish the counts of all sinks. See `Sink.show_counts`."""
        self._counts = counts

    def record(self, record: Record) -> None:
        """Count the event. See `RecordSink.record`."""
        event = record["event"]
        if event == "verdict":
            decision = "reject" if record["is_anomalous"] else "good"
            self._frames.labels(record["part"] or "", decision).inc()
            self._latency.observe(record["latency_ms"] / 1e3)
            if record["age_ms"] is not None:
                self._age.observe(record["age_ms"] / 1e3)
            if record["share_of_threshold"] is not None:
                self._share.set(record["share_of_threshold"])
        elif event == "withheld":
            self._withheld.inc()
        elif event == "missed":
            self._missed.inc(record["triggers"])
        elif event == "state":
            self._state.state(record["state"])
            self._causes.clear()
            for cause in record["causes"]:
                self._causes.labels(cause).set(1)

    def close(self) -> None:
        """Stop the web server."""
        if self._is_open:
            self._is_open = False
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _SinkCollector:
    """Counts of the sinks at the moment when they are fetched."""

    def __init__(self, counts: Callable[[], Sequence[SinkCount]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all sinks, as the library asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        written = CounterMetricFamily("edgead_sink_written", "Events that a sink has taken", labels=["sink"])
        lost = CounterMetricFamily("edgead_sink_lost", "Events that a sink has lost", labels=["sink"])
        replaced = CounterMetricFamily(
            "edgead_sink_replaced", "Verdicts that a newer one has replaced", labels=["sink"]
        )
        failing = GaugeMetricFamily("edgead_sink_failing", "Whether a sink fails", labels=["sink"])
        for count in self._counts():
            written.add_metric([count.sink], count.written)
            lost.add_metric([count.sink], count.lost)
            replaced.add_metric([count.sink], count.replaced)
            failing.add_metric([count.sink], count.problem is not None)
        return written, lost, replaced, failing


def plan_prometheus(uri: str) -> Plan:
    """Read an address ``prometheus:PORT`` or ``prometheus:HOST:PORT``.

    Raises:
        SinkError: The address is not usable.
        InputError: The address has options.
    """
    given, port = read_listener(uri, _EXAMPLE)
    host = given or LOCAL_HOST
    return Plan(f"{host}:{port}", partial(Prometheus, host, port))
