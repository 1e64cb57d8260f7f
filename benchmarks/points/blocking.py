"""Point 6: how long single events block the reactor, recorded by `benchmarks.timedreactor`.

A turn of the reactor handles all events that are ready, so a turn for hundreds of clients may last
long. What counts is the longest single event, because nothing else can run before it ends. Times
are CPU of the reactor's thread, so that load on the machine does not count.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan, tell
from benchmarks.variants import Variant


def measure(_plan: Plan, variant: Variant, held: int) -> dict[str, Any]:
    """The longest events in each phase of a service under load."""
    found: dict[str, Any] = {}
    times = Path(f"/tmp/envelope-benchmark-times.{os.getpid()}")
    lab = BenchLab(variant, twistd=("--reactor=timed",), env={"BENCHMARK_TIMES": str(times)})
    with lab:
        def phase(name: str, act: Callable[[], object]) -> None:
            lab.recorded(times)
            act()
            found[name] = lab.recorded(times)
            worst = max((each["cpu"] for each in found[name]["longest"].values()), default=0.0)
            tell(f"{variant.name}: {name}: longest event {worst * 1000:.1f} ms")

        phase("coming and going", lambda: lab.do("visits", count=1000, at_once=16))
        phase("a burst of 500", lambda: lab.do("hold", count=500, at_once=500))
        phase("filling up", lambda: lab.do("hold", count=held - 500, at_once=16))
        # Long enough for two of the periodic comparisons.
        phase("quiet", lambda: time.sleep(21))
        phase("coming and going, full", lambda: lab.do("visits", count=4000, at_once=16))
        phase("metrics", lambda: [lab.metric("envelope_sessions") for _ in range(3)])
        phase("all leave at once", lambda: lab.do("leave"))
    return {"held": held, "phases": found}
