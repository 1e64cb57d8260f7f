"""Point 8: clients that connect on a fixed schedule, whether or not those before are answered.

Each latency counts from the moment at which the schedule wanted the client to connect, so a service
that falls behind cannot hide it. Besides, a burst of distinct clients at once.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan, median, percentile, tell
from benchmarks.variants import NONE

RATES = (100, 200, 300, 400, 500, 600, 800, 1000)
BURST = 2000
# Sessions that are open before the burst, and have to be open after it.
OPEN = 50


def measure(plan: Plan) -> dict[str, Any]:
    """Of each variant: latencies in milliseconds by rate, and those of the burst."""
    seconds = plan.pick(4, 10)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        labs = [stack.enter_context(BenchLab(one)) for one in (NONE, *plan.backends)]
        for lab in labs:
            lab.do("visits", count=200, at_once=16)
            found[lab.variant.name] = {"rates": {}}
        for rate in RATES:
            for lab in labs:
                figures = _figures(lab.do("schedule", rate=rate, seconds=seconds))
                found[lab.variant.name]["rates"][str(rate)] = figures
                tell(f"{lab.variant.name}: {rate} a second: {figures['p99_ms']:.0f} ms")
        for lab in labs:
            lab.do("hold", count=OPEN, at_once=16)
            answer = lab.do("hold", count=BURST, at_once=BURST)
            found[lab.variant.name]["burst"] = {
                **_figures(answer), "held": answer["held"] - OPEN, "rules": lab.grants(),
            }
            lab.do("leave")
    return {"seconds": seconds, "burst": BURST, "variants": found}


def _figures(answer: dict[str, Any]) -> dict[str, Any]:
    connect = answer["connect"]
    return {
        "admitted": len(connect), "faults": answer["faults"], "median_ms": median(connect),
        "p99_ms": percentile(connect, 0.99), "max_ms": max(connect, default=float("nan")),
        "rate": len(connect) / answer["seconds"],
    }
