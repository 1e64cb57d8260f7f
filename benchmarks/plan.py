"""The size of a run, the backends in it, and helpers for rounds and medians."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.variants import Variant

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """The backends to compare with `none`; `full` is the long run."""

    backends: tuple[Variant, ...]
    full: bool = False

    def pick(self, quick: int, full: int) -> int:
        """`quick` for the short run, `full` for the long one."""
        return full if self.full else quick


def turns(rounds: int, takers: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Round and taker: each taker once a round, in alternating order (A B, B A, A B, …)."""
    for number in range(rounds):
        for taker in takers if number % 2 == 0 else reversed(takers):
            yield number, taker


def median(values: Iterable[float]) -> float:
    """The median; NaN without values."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed; NaN without values."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else float("nan")


def tell(text: str) -> None:
    """Print progress, with the time, to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
