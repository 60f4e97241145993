"""What the stream surface counts, for ``/metrics``.

Plain numbers on the hot path; Prometheus reads them when it asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class StreamCounters:
    """One process's counts; a Prometheus collector."""

    __slots__ = ("appended_bytes", "appends", "deliveries", "duplicates", "readers")

    def __init__(self) -> None:
        self.appends = 0
        self.appended_bytes = 0
        self.duplicates = 0
        self.deliveries = 0
        self.readers = 0

    def collect(self) -> Iterator[Metric]:
        """From Prometheus."""
        yield CounterMetricFamily("perdure_stream_appends", "Appends to free-standing streams", self.appends)
        yield CounterMetricFamily("perdure_stream_appended_bytes", "Bytes of their bodies", self.appended_bytes)
        yield CounterMetricFamily("perdure_stream_duplicates", "Appends that were known for retries", self.duplicates)
        yield CounterMetricFamily(
            "perdure_stream_deliveries", "Entries sent to live event readers at the tail", self.deliveries
        )
        yield GaugeMetricFamily("perdure_stream_readers", "Live readers of streams", self.readers)
