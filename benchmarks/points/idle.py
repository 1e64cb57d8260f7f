"""Point 9: what a service costs at rest: memory, and CPU with nothing happening."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan
from benchmarks.variants import BARE, NONE

HELD = 1000
# Seconds after the last visit; what visits leave to do is done by then.
_SETTLE = 15.0
_HOUR = 3600


def measure(plan: Plan) -> dict[str, Any]:
    """Of each variant: kilobytes resident, and seconds of CPU an hour, empty and with `HELD`.

    The variants rest side by side. Of `bare`, only what is resident.
    """
    seconds = float(plan.pick(120, 300))
    with BenchLab(BARE) as bare:
        found: dict[str, Any] = {BARE.name: {"resident_kb": bare.resident()}}
    with ExitStack() as stack:
        labs = [stack.enter_context(BenchLab(one)) for one in (NONE, *plan.backends)]
        for lab in labs:
            found[lab.variant.name] = {"resident_kb": lab.resident()}
        for held in (0, HELD):
            for lab in labs if held else ():
                lab.do("hold", count=held, at_once=16)
            time.sleep(_SETTLE)
            before = [lab.cpu() for lab in labs]
            time.sleep(seconds)
            for lab, spent in zip(labs, before, strict=True):
                found[lab.variant.name][f"cpu_{held}"] = (lab.cpu() - spent) / seconds * _HOUR
    return {"seconds": seconds, "held": HELD, "variants": found}
