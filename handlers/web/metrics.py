"""Metrics for Prometheus. They are read from the store when they are asked for; nothing is counted in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from jobs.service import Service, oldest_pending_seconds

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """Collects the metrics of the service and of this process."""

    def __init__(self, service: Service, *, clients: Callable[[], int]) -> None:
        self._service = service
        self._clients = clients
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def describe(self) -> list[Metric]:
        return []  # so that registering does not read the store

    def collect(self) -> Iterator[Metric]:
        counts = self._service.counts()
        jobs = GaugeMetricFamily("runcast_jobs", "Jobs in the store, by status.", labels=["status"])
        for status, count in counts.by_status.items():
            jobs.add_metric([status], count)
        yield jobs
        yield GaugeMetricFamily(
            "runcast_oldest_pending_seconds", "How long the oldest pending job has waited.", value=oldest_pending_seconds(counts) or 0
        )
        workers = [worker for worker in self._service.workers() if worker.alive]
        yield GaugeMetricFamily("runcast_workers", "Workers that are alive.", value=len(workers))
        yield GaugeMetricFamily("runcast_slots", "Slots of the workers that are alive.", value=sum(worker.slots for worker in workers))
        yield GaugeMetricFamily("runcast_busy_slots", "Slots in use.", value=sum(worker.busy_slots for worker in workers))
        yield GaugeMetricFamily("runcast_clients", "Connected Socket.IO clients.", value=self._clients())

    def text(self) -> bytes:
        return generate_latest(self._registry)
