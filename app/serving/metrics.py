"""What the service counts, for Prometheus: numbers only, never a name or a photo."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PHOTOS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All numbers of one service, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "serve_requests", "Requests answered.", ["route", "status"], registry=own
        )
        self.request_seconds = Histogram(
            "serve_request_seconds",
            "From a request's beginning to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self.answered = Counter(
            "serve_photos", "Photos by what was said: a label, or error.", ["label"], registry=own
        )
        self.batch_photos = Histogram(
            "serve_batch_photos", "Photos that went together.", buckets=PHOTOS, registry=own
        )
        self.network_seconds = Histogram(
            "serve_network_seconds",
            "A batch through the network.",
            buckets=SECONDS,
            registry=own,
        )
        self.decode_seconds = Histogram(
            "serve_decode_seconds",
            "Decoding one photo, its wait for a decoder included.",
            buckets=SECONDS,
            registry=own,
        )
        self.decoders_lost = Counter(
            "serve_decoders_lost",
            "Processes that did not decode a photo in time, or ended.",
            ["reason"],
            registry=own,
        )
        self.under_way = Gauge(
            "serve_photos_under_way", "Photos that wait or are worked on.", registry=own
        )
        self.held_bytes = Gauge(
            "serve_held_bytes", "Bytes of uploads that are held in memory.", registry=own
        )

    def count_answer(self, label: str) -> None:
        """Count one photo's answer; what is no UTF-8 in a class's name is shown by escapes."""
        self.answered.labels(label.encode(errors="backslashreplace").decode()).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)
