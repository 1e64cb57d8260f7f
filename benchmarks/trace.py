"""Where the time of one grant goes: the moments between asking the firewall and telling the client.

    .venv/bin/python -m benchmarks.trace [OTHER_CHECKOUT] [--visits N] [--firewall LIST]

One client after another comes and leaves, with a pause in between. Needs root. Prints, in
milliseconds, the median of each part of a grant and of a revocation: from asking the firewall to
writing to the tool, from there to the tool's answer, and from there until the client is told. The
service of OTHER_CHECKOUT (`make prepare` was run there) is traced too, in turns with this tree's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.lab import REPOSITORY, BenchLab, CannotRun
from benchmarks.plan import Plan, median, turns
from benchmarks.points.unloaded import PAUSE
from benchmarks.variants import ALONE, BACKENDS, Variant, chosen
from envelope.lab import LabUnavailable

STEPS = ("asked", "written", "answered", "told")
PARTS = (
    "asked to written", "written to answered", "answered to told", "asked to told",
)
ROUNDS = 4
_KNOWN = {**BACKENDS, **{each.name: each for each in ALONE.values()}}
# Of each part, by "grant" and "revocation": the milliseconds of each visit.
Parts = dict[str, dict[str, list[float]]]


def moments(lab: BenchLab, path: Path, visits: int) -> list[tuple[str, float]]:
    """What the traced service noted during so many visits."""
    lab.do("visits", count=visits, at_once=1, pause=PAUSE)
    noted: list[tuple[str, float]] = lab.recorded(path)
    return noted


def parts(noted: list[tuple[str, float]]) -> Parts:
    """The parts of each change. A change of the firewall's own in between is left out."""
    found: Parts = {"grant": defaultdict(list), "revocation": defaultdict(list)}
    kinds = list(found)
    number = 0
    for index in range(len(noted) - 3):
        step = noted[index:index + 4]
        if tuple(name for name, _ in step) != STEPS:
            continue
        times = [1000 * seconds for _, seconds in step]
        spans = [after - before for before, after in pairwise(times)]
        for name, span in zip(PARTS, [*spans, times[-1] - times[0]], strict=True):
            found[kinds[number % 2]][name].append(span)
        number += 1
    return found


def measure(variant: Variant, checkouts: tuple[Path, ...], visits: int) -> list[Parts]:
    """The parts for each checkout; raise `CannotRun` if a service does not start."""
    traced = replace(variant, plugin="envelope-traced")
    alone = {"BENCHMARK_ALONE": "1"} if variant in ALONE.values() else {}
    found: list[Parts] = [{} for _ in checkouts]
    with ExitStack() as stack:
        labs = []
        for number, checkout in enumerate(checkouts):
            path = Path(f"/tmp/envelope-benchmark-trace.{os.getpid()}.{number}")
            lab = stack.enter_context(
                BenchLab(traced, env={"BENCHMARK_TRACE": str(path), **alone}, checkout=checkout))
            lab.do("visits", count=50, at_once=1)
            moments(lab, path, 1)
            labs.append((lab, path))
        for _, which in turns(ROUNDS, range(len(checkouts))):
            for change, by_part in parts(moments(*labs[which], visits)).items():
                for name, values in by_part.items():
                    found[which].setdefault(change, defaultdict(list))[name] += values
    return found


def medians(found: Parts) -> dict[str, dict[str, float]]:
    """The median of each part, in milliseconds."""
    return {
        change: {part: median(values) for part, values in by_part.items()}
        for change, by_part in found.items()
    }


def rows(variants: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[tuple[str, ...]]:
    """A row for each backend and change: its parts in milliseconds, in the order of `PARTS`."""
    return [
        (name, change, *(f"{by_part[part]:.2f}" for part in PARTS))
        for name, changes in variants.items() for change, by_part in changes.items()
    ]


def point(plan: Plan) -> dict[str, Any]:
    """For the page: the medians of each backend, and of its tool alone."""
    visits = plan.pick(25, 100)
    alone = [ALONE[each.name] for each in plan.backends if each.name in ALONE]
    return {"variants": {
        one.name: medians(measure(one, (REPOSITORY,), visits)[0])
        for one in (*plan.backends, *alone)
    }}


def main() -> int:
    """Trace and print; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trace", description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER_CHECKOUT")
    parser.add_argument("--visits", type=int, default=100, help="visits a round (default 100)")
    parser.add_argument("--firewall", default="iptables,nftables",
                        help=f"variants, separated by commas, out of {', '.join(_KNOWN)}")
    arguments = parser.parse_args()
    variants = chosen(parser, arguments.firewall, _KNOWN)
    others = () if arguments.other is None else (arguments.other.resolve(),)
    print(f"{'variant':19} {'change':11} {'part':20} {'this':>7} " + "  other" * len(others))
    for variant in variants:
        found = measure(variant, (REPOSITORY, *others), arguments.visits // ROUNDS)
        for change in found[0]:
            for part in PARTS:
                figures = "".join(f"{median(each[change][part]):7.2f} " for each in found)
                print(f"{variant.name:19} {change:11} {part:20} {figures}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabUnavailable, CannotRun, RuntimeError) as reason:
        print(f"benchmarks: {reason}", file=sys.stderr)
        sys.exit(1)
