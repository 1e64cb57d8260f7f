"""Point 1: one client at a time: connect to 101, and close frame to the first refused packet."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan, median, percentile, turns
from benchmarks.variants import NONE

# Seconds between visits, in which the kernel finishes deletions; and visits in one round.
PAUSE: Final = 0.05
_VISITS: Final = 25


def measure(plan: Plan) -> dict[str, Any]:
    """Milliseconds by variant: medians, those of each round, and 99th percentiles."""
    with ExitStack() as stack:
        labs = [stack.enter_context(BenchLab(one)) for one in (NONE, *plan.backends)]
        for lab in labs:
            lab.do("visits", count=_VISITS, at_once=1)
        found = {
            name: _connects(labs, plan.pick(12, 40), pause)
            for name, pause in (("unloaded", PAUSE), ("behind", 0.0))
        }
        gone: dict[str, list[float]] = {lab.variant.name: [] for lab in labs[1:]}
        for _, lab in turns(plan.pick(4, 10), labs[1:]):
            gone[lab.variant.name] += lab.do("gone", count=10)["gone"]
    return {**found, "gone_ms": {name: median(values) for name, values in gone.items()}}


def _connects(labs: list[BenchLab], rounds: int, pause: float) -> dict[str, Any]:
    connect: dict[str, list[list[float]]] = {lab.variant.name: [] for lab in labs}
    for _, lab in turns(rounds, labs):
        answer = lab.do("visits", count=_VISITS, at_once=1, pause=pause)
        connect[lab.variant.name].append(answer["connect"])
    return {
        "connect_ms": {
            name: median(value for each in found for value in each)
            for name, found in connect.items()
        },
        "connect_ms_rounds": {
            name: [median(each) for each in found] for name, found in connect.items()
        },
        "p99_ms": {
            name: percentile((value for each in found for value in each), 0.99)
            for name, found in connect.items()
        },
    }
