"""What the service counts, for Prometheus: numbers only, never a name or a photo."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

# Names a folder in which several processes count together; prometheus_client reads it when it is
# imported (app.serving.workers).
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PHOTOS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All numbers of one service, in a registry of their own; of several workers, the sums."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=own)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=SECONDS, registry=own)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=own, multiprocess_mode="livesum")

        self.requests = counter("serve_requests", "Requests answered.", "route", "status")
        self.request_seconds = seconds(
            "serve_request_seconds", "From a request's beginning to the end of its answer.", "route"
        )
        self.answered = counter("serve_photos", "Photos by their label, or error.", "label")
        self.batch_photos = Histogram(
            "serve_batch_photos", "Photos of one batch.", buckets=PHOTOS, registry=own
        )
        self.network_seconds = seconds("serve_network_seconds", "A batch through the network.")
        self.decode_seconds = seconds(
            "serve_decode_seconds", "Decoding one photo, its wait for a decoder included."
        )
        self.decoders_lost = counter(
            "serve_decoders_lost", "Processes that were late with a photo, or ended.", "reason"
        )
        self.under_way = gauge("serve_photos_under_way", "Photos that wait or are processed.")
        self.held_bytes = gauge("serve_held_bytes", "Bytes of uploads in memory.")

    def count_answer(self, label: str) -> None:
        """Count one photo's answer; what is no UTF-8 in a class's name is shown by escapes."""
        self.answered.labels(label.encode(errors="backslashreplace").decode()).inc()

    def count_lost(self, reason: str) -> None:
        """Count one decoding process that was lost."""
        self.decoders_lost.labels(reason).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus's text format, of all workers together."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
