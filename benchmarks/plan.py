"""How large a run is, and what takes part in it."""

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
    """The backends to compare with `none`, and whether this is the long run."""

    backends: tuple[Variant, ...]
    full: bool = False

    def pick(self, quick: int, full: int) -> int:
        """A size: one for minutes, one for the long run."""
        return full if self.full else quick


def turns(rounds: int, takers: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Who is when: everybody once a round, in alternating order (A B, B A, A B, …)."""
    for number in range(rounds):
        for taker in takers if number % 2 == 0 else reversed(takers):
            yield number, taker


def median(values: Iterable[float]) -> float:
    """The median; of nothing, not a number."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of them do not exceed."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else float("nan")


def tell(text: str) -> None:
    """Say what is going on."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
