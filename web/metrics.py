"""The process's Prometheus registry and its metrics. health.py reads those of the database."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# Not the library's global registry, which may contain other libraries' metrics.
registry: Final = CollectorRegistry()
ProcessCollector(registry=registry)
PlatformCollector(registry=registry)
GCCollector(registry=registry)

requests_total: Final = Counter(
    "paythread_http_requests_total", "HTTP requests answered.", ("method", "route", "status"), registry=registry
)
request_seconds: Final = Histogram(
    "paythread_http_request_duration_seconds", "Time until the whole answer was sent.", ("route",), registry=registry
)
webhooks_total: Final = Counter(
    "paythread_webhooks_total",
    "Webhooks received, by provider and what became of them.",
    ("provider", "result"),
    registry=registry,
)
jobs: Final = Gauge("paythread_jobs", "Background jobs by status.", ("status",), registry=registry)
oldest_job_seconds: Final = Gauge(
    "paythread_oldest_due_job_seconds", "How long the oldest job that is due has been waiting.", registry=registry
)
unhandled_events: Final = Gauge(
    "paythread_unhandled_processor_events",
    "Stored webhooks, older than five minutes, that could not be handled yet.",
    registry=registry,
)
bus: Final = Gauge(
    "paythread_event_bus_connected", "1 while EVENTS_URL is connected, else 0: events are late.", registry=registry
)
live: Final = Gauge("paythread_live_events_healthy", "1 while the event log is being read, else 0.", registry=registry)
live_views: Final = Gauge(
    "paythread_live_view_lists", "Distinct filters and orders that live views follow.", registry=registry
)
live_view_watchers: Final = Gauge(
    "paythread_live_view_watchers", "Executions that follow live views; sockets share them.", registry=registry
)
live_view_items: Final = Gauge("paythread_live_view_items", "Items of live views in memory.", registry=registry)
live_view_changes: Final = Counter(
    "paythread_live_view_changes_total", "Changed items that were read for live views.", registry=registry
)
live_view_evaluations: Final = Counter(
    "paythread_live_view_evaluations_total",
    "Decisions where a changed item belongs: one for each change and distinct list.",
    registry=registry,
)


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request."""
    _requests(method, route, status).inc()
    _seconds(route).observe(seconds)


# The library validates the labels at every look-up.
@lru_cache(maxsize=1024)
def _requests(method: str, route: str, status: int) -> Counter:
    return requests_total.labels(method, route, status)


@lru_cache(maxsize=256)
def _seconds(route: str) -> Histogram:
    return request_seconds.labels(route)
