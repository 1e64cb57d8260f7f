"""Metrics of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class LogMetrics(Collector):
    """Counts the lines of the log that were lost; registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._dropped: Callable[[], int] = lambda: 0
        registry.register(self)

    def watch(self, dropped: Callable[[], int]) -> None:
        """Call `dropped` at each scrape for the number of lines that were lost."""
        self._dropped = dropped

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See `Collector`."""
        yield CounterMetricFamily(
            "envelope_log_dropped_total",
            "Lines of the log that were lost because they could not be written in time.",
            value=self._dropped(),
        )
