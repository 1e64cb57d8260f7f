"""`python -m benchmarks`: take the measurements, keep them, and write the report."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks import report, trace, verdicts
from benchmarks.lab import REPOSITORY, BenchLab, CannotRun
from benchmarks.plan import Plan, tell
from benchmarks.points import (
    blocking,
    burst,
    coming,
    held,
    idle,
    memory,
    openloop,
    profile,
    spread,
    start,
    unloaded,
)
from benchmarks.results import Results
from benchmarks.variants import BACKENDS, IPTABLES, NFTABLES, NONE, Variant
from envelope.lab import LabUnavailable

RESULTS = REPOSITORY / "benchmarks" / "results.json"
# With --resume, measurements younger than this (seconds) are not repeated.
RESUME_WITHIN = 3 * 3600

Measurement = tuple[str, Callable[[], dict[str, Any]]]


def measurements(plan: Plan) -> Iterator[Measurement]:
    """All measurements with their names; the large ones only in the long run."""
    yield "start", partial(start.measure, plan)
    yield "unloaded", partial(unloaded.measure, plan)
    yield "coming", partial(coming.measure, plan)
    yield "burst", partial(burst.measure, plan)
    yield "openloop", partial(openloop.measure, plan)
    yield "idle", partial(idle.measure, plan)
    for backend in plan.backends:
        steps = _steps(plan, backend)
        yield f"held {backend.name}", partial(held.measure, plan, backend, steps)
    yield "spread", partial(spread.measure, plan)
    steps = (1000, 3000, 10000) if plan.full else (1000, 3000)
    yield "memory none", partial(memory.measure, plan, NONE, steps)
    best = NFTABLES if NFTABLES in plan.backends else IPTABLES
    yield f"memory {best.name}", partial(memory.measure, plan, best, steps)
    for backend in plan.backends:
        large = plan.full and backend is NFTABLES
        yield f"blocking {backend.name}", partial(
            blocking.measure, plan, backend, 10000 if large else 1000
        )
    yield "trace", partial(trace.point, plan)
    yield "profile", partial(profile.measure, plan, plan.backends[0])


def _steps(plan: Plan, backend: Variant) -> tuple[int, ...]:
    if not plan.full:
        return (100, 1000)
    return (10, 100, 1000, 10000) if backend is NFTABLES else (10, 100, 1000)


def main() -> int:
    """Run; the exit status is 0 if everything was measured, whether or not goals were met."""
    arguments = _arguments()
    results = Results(RESULTS)
    if not arguments.report:
        backends = _available(arguments.firewall.split(","))
        plan = Plan(backends, arguments.full)
        wanted = dict(measurements(plan))
        for name in arguments.only or wanted:
            if name not in wanted:
                print(f"there is no measurement {name!r}; there are: {', '.join(wanted)}",
                      file=sys.stderr)
                return 2
            # Results of long and short runs are not mixed.
            if arguments.resume and results.age(name, plan.full) < RESUME_WITHIN:
                continue
            tell(name)
            began = time.monotonic()
            results.put(name, plan.full, wanted[name](), time.monotonic() - began)
    committed = results.committed()
    report.write(results.entries, REPOSITORY / "docs")
    print((REPOSITORY / "docs" / "performance.md").read_text().partition("\n## ")[0])
    changes = verdicts.moved(committed, results.entries)
    none = "No figure moved by more than chance since the committed results."
    print("\n".join(changes or [none]))
    return 0


def _available(names: list[str]) -> tuple[Variant, ...]:
    """The backends of these names that run on this machine; raise `CannotRun` without any."""
    found = []
    for name in names:
        try:
            with BenchLab(BACKENDS[name]):
                found.append(BACKENDS[name])
        except CannotRun as reason:
            tell(f"without {name}: {reason}")
    if not found:
        raise CannotRun("none of the backends runs here")
    return tuple(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the large ones too (25 minutes)")
    parser.add_argument("--firewall", default="iptables,nftables",
                        help=f"backends, separated by commas, out of {', '.join(BACKENDS)}")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this measurement")
    parser.add_argument("--resume", action="store_true",
                        help="leave out what was measured at this commit in the last hours")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabUnavailable, CannotRun) as reason:
        print(f"benchmarks: {reason}", file=sys.stderr)
        sys.exit(1)
