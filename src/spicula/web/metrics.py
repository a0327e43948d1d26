"""``/metrics``: what a monitoring system asks for, in Prometheus' text format, without any patient's data."""

from __future__ import annotations

from spicula.core.extras import require
from spicula.pipelines.workplace import Workplace

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper ends of the classes of answering times."""


class Metrics:
    """Counts of one application.

    Args:
        place: The store, whose jobs and bytes are told too.
    """

    def __init__(self, place: Workplace) -> None:
        prometheus = require("prometheus_client", extra="serve")
        self._place, self._text = place, prometheus.generate_latest
        self._registry = prometheus.CollectorRegistry()
        self._seconds = prometheus.Histogram(
            "spicula_request_seconds", "Time to answer a request.", ("method", "route", "status"), buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        gauge = prometheus.Gauge
        self._jobs = gauge("spicula_jobs", "Jobs by state.", ("state",), registry=self._registry)
        self._bytes = gauge("spicula_store_bytes", "What all instances take.", registry=self._registry)
        self._studies = gauge("spicula_studies", "Studies in the store.", registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        known = method if method in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS") else "other"
        self._seconds.labels(known, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """Everything, as it is asked for."""
        counts = self._place.queue.counts()
        for state in ("queued", "running", "done", "failed", "cancelled"):
            self._jobs.labels(state).set(counts.get(state, 0))
        self._bytes.set(self._place.studies.bytes_used())
        self._studies.set(self._place.studies.list(limit=1).total)
        return bytes(self._text(self._registry))
