"""Point 3: 500 distinct clients at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan, median, percentile, turns
from benchmarks.variants import NONE

CLIENTS = 500


def measure(plan: Plan) -> dict[str, Any]:
    """Of each variant, by round: the number let in, and milliseconds from connecting to 101."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        labs = [stack.enter_context(BenchLab(one)) for one in (NONE, *plan.backends)]
        for lab in labs:
            lab.do("visits", count=50, at_once=4)
            found[lab.variant.name] = {"rounds": []}
        for _, lab in turns(plan.pick(3, 8), labs):
            answer = lab.do("hold", count=CLIENTS, at_once=CLIENTS)
            rules = lab.grants()
            left = lab.do("leave")
            found[lab.variant.name]["rounds"].append({
                "admitted": answer["held"], "rules": rules, "faults": answer["faults"],
                "median_ms": median(answer["connect"]),
                "p99_ms": percentile(answer["connect"], 0.99),
                "max_ms": max(answer["connect"], default=float("nan")),
                "leave_seconds": left["seconds"],
            })
    for figures in found.values():
        rounds = figures["rounds"]
        figures["p99_ms"] = median(each["p99_ms"] for each in rounds)
        figures["admitted"] = min(each["admitted"] for each in rounds)
    return {"clients": CLIENTS, "variants": found}
