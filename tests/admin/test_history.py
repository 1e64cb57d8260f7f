"""The last ten minutes, sample by sample."""

from __future__ import annotations

import pytest

from envelope.admin.history import KEPT, History, Sample, percentile


@pytest.mark.parametrize(("values", "percent", "expected"), [
    ([], 50, None), ([3.0], 95, 3.0), ([4.0, 1.0, 2.0, 3.0], 50, 2.0),
    ([4.0, 1.0, 2.0, 3.0], 95, 4.0), (range(1, 101), 95, 95), (range(1, 101), 50, 50),
    ([1.0, 2.0], 0, 1.0),
])
def test_percentiles(values, percent: int, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_a_sample_has_its_place_in_every_list() -> None:
    history = History()
    history.add(Sample({"expired": 2}, [0.25, 0.125], 1e6), 1000.0)
    history.add(Sample({"missing": 1}, [], None), 1005.0)
    assert history.as_object() == {
        "every": 5, "until": 1005.0,
        "refusals": {"expired": [2, 0], "missing": [0, 1]},
        "grant_seconds_p50": [0.125, None], "grant_seconds_p95": [0.25, None],
        "tx_bits_per_second": [1000000, None],
    }


def test_ten_minutes_are_kept() -> None:
    history = History()
    for number in range(KEPT + 7):
        history.add(Sample({}, [], float(number)), 0.0)
    rates = history.as_object()["tx_bits_per_second"]
    assert (len(rates), rates[0], rates[-1]) == (KEPT, 7, KEPT + 6)


def test_samples_that_were_missed_leave_gaps() -> None:
    history = History()
    history.add(Sample({}, [], 1.0), 0.0)
    history.add(Sample({}, [], 2.0), 20.0, missed=2)
    assert history.as_object()["tx_bits_per_second"] == [1, None, None, 2]
    history.add(Sample({}, [], 3.0), 1e6, missed=10**6)
    assert history.as_object()["tx_bits_per_second"] == [None] * (KEPT - 1) + [3]
