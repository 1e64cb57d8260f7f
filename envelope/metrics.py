"""What the metrics of every package share: their registry, their children, their text.

A package declares what happens in it in its own `metrics` module. A label's values are the members
of an enum that stands where the thing happens, never a text from a client. Every combination that
can occur is exported from the start, at 0, so that dashboards and alerts know it before it happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from envelope import __version__

# Upper bounds in seconds. A grant takes well under a millisecond on an idle machine; clients give
# up after 2 s.
FAST_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0,
)
# Upper bounds in seconds. Measurements take ten seconds to some minutes.
SLOW_BUCKETS: Final = (
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)

Metric = TypeVar("Metric", Counter, Gauge, Histogram)
# One member for a metric with one label, a tuple of members for one with several.
Labels: TypeAlias = StrEnum | tuple[StrEnum, ...]
L = TypeVar("L", bound=Labels)


def new_registry() -> CollectorRegistry:
    """A registry with what is known of the process; one for each service in it.

    It holds `envelope_build_info`, and prometheus_client's own metrics: `process_*`, read from
    /proc, and `python_info`.
    It also switches off the `_created` series that prometheus_client adds to each counter, which
    no dashboard reads; that setting is the whole process's.
    """
    disable_created_metrics()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    build = Gauge(
        "envelope_build_info", "Always 1; the label says which version runs.",
        ["version"], registry=registry,
    )
    build.labels(__version__).set(1)
    return registry


def children(metric: Metric, values: Iterable[L]) -> dict[L, Metric]:
    """The children of `metric` by label values, all of them exported from now on.

    `values` is an enum, or an iterable of tuples with a member for each label, as
    `itertools.product` makes. Looking up anything else is a type error, and raises `KeyError`.
    """
    return {
        value: metric.labels(*value) if isinstance(value, tuple) else metric.labels(value)
        for value in values
    }


def as_text(registry: CollectorRegistry) -> bytes:
    """All metrics of a registry in Prometheus' text format, version 0.0.4."""
    return generate_latest(registry)
