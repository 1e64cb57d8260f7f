"""Point 2: clients coming and going: visits a second, CPU a visit, and latency, by concurrency."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan, median, turns
from benchmarks.variants import BARE, NONE, REFERENCE

AT_ONCE = 16
SWEEP = (1, 2, 4, 8, 16, 32, 64, 128)
# Visits a round of the reference, which makes some 20 a second.
_FEW = 3 * AT_ONCE


def measure(plan: Plan) -> dict[str, Any]:
    """Of each variant: the figures of each round at 16, and of each concurrency once."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        labs = [
            stack.enter_context(BenchLab(one)) for one in (NONE, *plan.backends, REFERENCE, BARE)
        ]
        for lab in labs:
            few = lab.variant is REFERENCE
            lab.do("visits", count=_FEW if few else 200, at_once=AT_ONCE)
            found[lab.variant.name] = {"rounds": [], "sweep": {}}
        for _, lab in turns(plan.pick(6, 16), labs):
            count = _FEW if lab.variant is REFERENCE else plan.pick(800, 1600)
            found[lab.variant.name]["rounds"].append(visits(lab, count, AT_ONCE))
        for at_once in SWEEP:
            for lab in labs:
                count = max(_FEW, at_once) if lab.variant is REFERENCE else max(300, 6 * at_once)
                found[lab.variant.name]["sweep"][str(at_once)] = visits(lab, count, at_once)
        for lab in labs:
            found[lab.variant.name]["grants_left"] = lab.grants()
    for figures in found.values():
        rounds = figures["rounds"]
        for name in ("rate", "cpu_ms", "connect_ms", "client_cpu_ms"):
            figures[name] = median(each[name] for each in rounds)
        figures["faults"] = dict(sum((Counter(each["faults"]) for each in rounds), Counter()))
    return {"at_once": AT_ONCE, "variants": found}


def visits(lab: BenchLab, count: int, at_once: int) -> dict[str, Any]:
    """Let `count` clients come and go, `at_once` at a time.

    Returns visits a second (`rate`), CPU milliseconds a visit of the service (`cpu_ms`) and of the
    clients (`client_cpu_ms`), the median from connect to 101 (`connect_ms`), and errors (`faults`).
    """
    answer = lab.do("visits", count=count, at_once=at_once)
    done = len(answer["leave"])
    return {
        "rate": done / answer["seconds"], "cpu_ms": answer["cpu"] / count * 1000,
        "client_cpu_ms": answer["client_cpu"] / count * 1000,
        "connect_ms": median(answer["connect"]), "faults": answer["faults"],
    }
