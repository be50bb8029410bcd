"""Numbers for Prometheus: one registry for each server, no module-level state."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector


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
        self.connections = Gauge("overair_device_connections", "Devices connected over MQTT now.", registry=self.registry)
        self.stream_blocks = Counter("overair_stream_blocks", "Stream blocks sent to devices.", registry=self.registry)
        self.worker_runs = Counter("overair_worker_runs", "Durable steps that workers did.", ["worker"], registry=self.registry)

    def observe_request(self, service: str, operation: str, status: int, seconds: float) -> None:
        """After each answer of the operator door."""
        self.requests.labels(service, operation, status).inc()
        self.request_seconds.labels(service).observe(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
