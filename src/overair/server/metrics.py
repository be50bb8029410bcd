"""Numbers for Prometheus: one registry for each server, no module-level state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Where the numbers of the device door and of the workers stand; each is asked on the event loop."""

    connections: Callable[[], int]
    connections_ended: Callable[[], Mapping[str, int]]
    """Since the start, by reason."""
    sessions: Callable[[], int]
    messages_dropped: Callable[[], int]
    stream_blocks: Callable[[], int]
    workers_failing: Callable[[], int]
    metadata_ends: Callable[[], Mapping[tuple[str, str], float]]
    """Of Uptane's documents, by repository and role: seconds since the epoch."""
    first_ends: Callable[[], Mapping[str, float]]
    """The first of each kind of thing that ends: seconds since the epoch."""
    expiry_warnings: Callable[[], Mapping[tuple[str, int], int]]
    """Given since the start, by kind and days."""


class _Live(Collector):
    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        read = self._readings
        yield GaugeMetricFamily("overair_device_connections", "Devices connected over MQTT now.", read.connections())
        yield GaugeMetricFamily("overair_device_sessions", "MQTT sessions held, live and waiting.", read.sessions())
        yield GaugeMetricFamily("overair_workers_failing", "Workers whose last attempt failed.", read.workers_failing())
        yield CounterMetricFamily("overair_stream_blocks", "Stream blocks answered to devices.", read.stream_blocks())
        yield CounterMetricFamily(
            "overair_messages_dropped", "Messages that a full queue or a slow reader cost.", read.messages_dropped()
        )
        ends = GaugeMetricFamily(
            "overair_metadata_expiry_timestamp_seconds",
            "When a signed document of a Uptane repository ends.",
            labels=["repository", "role"],
        )
        for (repository, role), at_s in sorted(read.metadata_ends().items()):
            ends.add_metric([repository, role], at_s)
        yield ends
        firsts = GaugeMetricFamily(
            "overair_expiry_timestamp_seconds",
            "When the first of a kind of certificate, document or list ends.",
            labels=["kind"],
        )
        for kind, at_s in sorted(read.first_ends().items()):
            firsts.add_metric([kind], at_s)
        yield firsts
        warned = CounterMetricFamily(
            "overair_expiry_warnings", "Warnings of what ends soon, or has ended (0 days).", labels=["kind", "days"]
        )
        for (kind, days), count in sorted(read.expiry_warnings().items()):
            warned.add_metric([kind, str(days)], count)
        yield warned
        ended = CounterMetricFamily("overair_device_connections_ended", "Connections that ended.", labels=["reason"])
        for reason, count in sorted(read.connections_ended().items()):
            ended.add_metric([reason], count)
        yield ended


class Metrics:
    """Every number that Overair counts, by name; ``/metrics`` on the operator port prints them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "overair_operator_requests",
            "Operator requests answered.",
            ["service", "operation", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "overair_operator_request_seconds", "Time to answer an operator request.", ["service"], registry=self.registry
        )

        self.device_requests = Counter(
            "overair_device_requests",
            "Requests of devices answered over HTTPS.",
            ["operation", "status"],
            registry=self.registry,
        )
        self.device_request_seconds = Histogram(
            "overair_device_request_seconds", "Time to answer a device's request.", ["operation"], registry=self.registry
        )

    def watch(self, readings: Readings) -> None:
        """Read what others count anyway, at each scrape."""
        self.registry.register(_Live(readings))

    def observe_request(self, service: str, operation: str, status: int, seconds: float) -> None:
        """After each answer of the operator door."""
        self.requests.labels(service, operation, status).inc()
        self.request_seconds.labels(service).observe(seconds)

    def observe_device_request(self, _service: str, operation: str, status: int, seconds: float) -> None:
        """After each answer of the device door."""
        self.device_requests.labels(operation, status).inc()
        self.device_request_seconds.labels(operation).observe(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
