"""The last ten minutes of refusals, grants and the transmit rate, for the page's charts. Pure.

All times are numbers of samples: one is taken every `EVERY` seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

EVERY: Final = 5
KEPT: Final = 600 // EVERY


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in the `EVERY` seconds before it, or what was measured at its moment.

    `refusals` are numbers by reason, without those that are 0. `grants` are how many seconds each
    grant took from being asked for to being in force. `rate` is in bits per second, None without
    `--tx-device`.
    """

    refusals: Mapping[str, int]
    grants: Sequence[float]
    rate: float | None


class History:
    """The last `KEPT` samples."""

    def __init__(self) -> None:
        self._refusals: deque[Mapping[str, int]] = deque(maxlen=KEPT)
        self._middle: deque[float | None] = deque(maxlen=KEPT)
        self._slowest: deque[float | None] = deque(maxlen=KEPT)
        self._rates: deque[float | None] = deque(maxlen=KEPT)
        self._until = 0.0

    def add(self, sample: Sample, now: float, missed: int = 0) -> None:
        """Add one taken at `now` (seconds since the epoch), after `missed` that were not taken."""
        for _ in range(min(missed, KEPT)):
            self._append(Sample({}, (), None))
        self._append(sample)
        self._until = now

    def _append(self, sample: Sample) -> None:
        self._refusals.append(sample.refusals)
        self._middle.append(percentile(sample.grants, 50))
        self._slowest.append(percentile(sample.grants, 95))
        self._rates.append(None if sample.rate is None else round(sample.rate))

    def as_object(self) -> dict[str, object]:
        """The samples, oldest first, ready for JSON; the last was taken at `until`.

        A value is None where nothing was measured. Only reasons that occurred are listed.
        """
        reasons = sorted({reason for each in self._refusals for reason in each})
        return {
            "every": EVERY,
            "until": round(self._until, 3),
            "refusals": {
                reason: [each.get(reason, 0) for each in self._refusals] for reason in reasons
            },
            "grant_seconds_p50": [*self._middle],
            "grant_seconds_p95": [*self._slowest],
            "tx_bits_per_second": [*self._rates],
        }


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The smallest of `values` that so many percent of them do not exceed; None without values."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return round(sorted(values)[max(rank, 1) - 1], 6)
