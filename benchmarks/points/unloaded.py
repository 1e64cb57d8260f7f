"""Point 1: one client at a time: connect to 101, and close frame to the first refused packet."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan, median, turns
from benchmarks.variants import NONE


def measure(plan: Plan) -> dict[str, Any]:
    """Medians in milliseconds by variant, those of each round too."""
    rounds, visits = plan.pick(12, 40), 25
    with ExitStack() as stack:
        labs = [stack.enter_context(BenchLab(one)) for one in (NONE, *plan.backends)]
        for lab in labs:
            lab.do("visits", count=visits, at_once=1)
        connect: dict[str, list[list[float]]] = {lab.variant.name: [] for lab in labs}
        gone: dict[str, list[float]] = {lab.variant.name: [] for lab in labs[1:]}
        for _, lab in turns(rounds, labs):
            answer = lab.do("visits", count=visits, at_once=1)
            connect[lab.variant.name].append(answer["connect"])
        for _, lab in turns(plan.pick(4, 10), labs[1:]):
            gone[lab.variant.name] += lab.do("gone", count=10)["gone"]
    return {
        "connect_ms": {
            name: median(value for each in found for value in each)
            for name, found in connect.items()
        },
        "connect_ms_rounds": {
            name: [median(each) for each in found] for name, found in connect.items()
        },
        "gone_ms": {name: median(values) for name, values in gone.items()},
    }
