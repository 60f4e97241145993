"""What the runtime counts, for ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One process's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.objects_awake = Gauge("perdure_objects_awake", "Instances in memory", registry=registry)
        self.connections = Gauge("perdure_connections", "Live client connections", registry=registry)
        self.commits = Counter("perdure_commits", "Commits that became durable", registry=registry)
        self.sync_seconds = Histogram(
            "perdure_sync_seconds",
            "Time of one group commit (write and sync)",
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
            registry=registry,
        )
        self.journal_live_bytes = Gauge("perdure_journal_live_bytes", "What a recovery would read", registry=registry)
        self.loop_lag_seconds = Gauge("perdure_loop_lag_seconds", "How late the event loop is", registry=registry)
        self.resets = Counter("perdure_object_resets", "Instances discarded after an error", registry=registry)
        self.turns_running = Gauge("perdure_turns_running", "Turns in which a model is answering", registry=registry)
        self.turns = Counter("perdure_turns", "Turns that ended, by how", ["status"], registry=registry)
