"""Compares the service of this tree with that of another checkout, measure by measure, in one run.

    .venv/bin/python -m benchmarks.trees OTHER_CHECKOUT [--rounds N] [--firewall LIST]

OTHER_CHECKOUT has been prepared (`make prepare`): its service runs in its own .venv. Needs root.
The two trees take turns, each on two hosts of its own, so that a busy machine is busy for both.
Prints, for each variant and measure, the median of each tree, the ratio of this tree's median to
the other's, and the smallest and largest ratio of two figures of the same round. A checkout
compared with itself (`python -m benchmarks.trees .`) shows how much of a ratio is chance.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.lab import REPOSITORY, BenchLab, CannotRun
from benchmarks.plan import Plan, median, tell, turns
from benchmarks.points import coming, memory
from benchmarks.points.unloaded import PAUSE
from benchmarks.variants import BACKENDS, NONE, Variant, chosen
from envelope.lab import LabUnavailable

# Sizes of one round: visits of clients that come and go, visits one at a time, sessions held.
VISITS, SINGLE_VISITS, HELD = 800, 100, 1000
# Each memory figure needs a service of its own, which takes seconds to start.
MEMORY_ROUNDS = 3
RATE, CPU, CONNECT, MEMORY = (
    f"{coming.AT_ONCE} come and go, a second", "CPU a visit, ms", "connect to 101 unloaded, ms",
    f"memory of one of {HELD} sessions, kB",
)
# Figures of each tree (0: this one, 1: the other), by measure, in the order of the rounds.
Figures = dict[str, tuple[list[float], list[float]]]


def measure(variant: Variant, checkouts: tuple[Path, Path], rounds: int) -> Figures:
    """Take all measures of one variant.

    Raises `CannotRun` if a service does not start, `RuntimeError` if a visit fails.
    """
    figures: Figures = defaultdict(lambda: ([], []))
    with ExitStack() as stack:
        labs = [stack.enter_context(BenchLab(variant, checkout=each)) for each in checkouts]
        for lab in labs:
            coming.visits(lab, VISITS // 4, coming.AT_ONCE)
        for _, which in turns(rounds, (0, 1)):
            seen = coming.visits(labs[which], VISITS, coming.AT_ONCE)
            _need_no_faults(seen["faults"])
            figures[RATE][which].append(seen["rate"])
            figures[CPU][which].append(seen["cpu_ms"])
        for _, which in turns(rounds, (0, 1)):
            answer = labs[which].do("visits", count=SINGLE_VISITS, at_once=1, pause=PAUSE)
            _need_no_faults(answer["faults"])
            figures[CONNECT][which].append(median(answer["connect"]))
    for _, which in turns(min(rounds, MEMORY_ROUNDS), (0, 1)):
        held = memory.measure(Plan(()), variant, (HELD,), checkouts[which])["steps"][0]
        _need_no_faults(held["faults"])
        figures[MEMORY][which].append(held["bytes_a_session"] / 1000)
    return figures


def _need_no_faults(faults: dict[str, Any]) -> None:
    if faults:
        raise RuntimeError(f"visits failed: {faults}")


def lines(variant: Variant, figures: Figures) -> list[str]:
    """The table's lines for one variant."""
    made = []
    for name, (ours, theirs) in figures.items():
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        made.append(
            f"{variant.name:16} {name:34} {median(theirs):9.2f} {median(ours):9.2f} "
            f"{median(ours) / median(theirs):6.3f}  {min(ratios):.3f} to {max(ratios):.3f}"
        )
    return made


def main() -> int:
    """Measure all variants and print the table; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trees", description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of each measure (default 8)")
    parser.add_argument("--firewall", default="none,iptables,nftables",
                        help=f"variants, separated by commas, out of none, {', '.join(BACKENDS)}")
    arguments = parser.parse_args()
    variants = chosen(parser, arguments.firewall, {NONE.name: NONE, **BACKENDS})
    print(f"{'variant':16} {'measure':34} {'other':>9} {'this':>9} {'ratio':>6}  of single rounds")
    for variant in variants:
        tell(variant.name)
        figures = measure(variant, (REPOSITORY, arguments.other.resolve()), arguments.rounds)
        print("\n".join(lines(variant, figures)), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabUnavailable, CannotRun, RuntimeError) as reason:
        print(f"benchmarks: {reason}", file=sys.stderr)
        sys.exit(1)
