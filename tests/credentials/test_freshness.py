"""How long a fetched answer is fresh, and how long the pauses after failures are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.credentials.freshness import (
    DEFAULT_LIFETIME,
    LONGEST,
    LONGEST_PAUSE,
    SHORTEST,
    lifetime,
    refresh_after,
    retry_after,
    unknown_kid_delay,
)

# 2026-11-25 04:00:00 UTC
NOW = 1_795_579_200.0
DATE = ("date", "Wed, 25 Nov 2026 04:00:00 GMT")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], DEFAULT_LIFETIME),
        ([("cache-control", "public")], DEFAULT_LIFETIME),
        ([("cache-control", "max-age=600")], 600),
        ([("cache-control", "Public, MAX-AGE=600, must-revalidate")], 600),
        ([("cache-control", 'max-age="600"')], 600),
        ([("cache-control", "public"), ("cache-control", "max-age=600")], 600),
        ([("cache-control", "max-age=600, max-age=900")], 600),
        ([("cache-control", "max-age=600"), ("age", "100")], 500),
        ([("cache-control", "max-age=600"), ("age", "rubbish")], 600),
        ([("cache-control", "max-age=600"), ("expires", "0")], 600),
        ([("cache-control", "s-maxage=600")], DEFAULT_LIFETIME),
        ([("cache-control", "max-age=5")], SHORTEST),
        ([("cache-control", "max-age=0")], SHORTEST),
        ([("cache-control", "max-age=-7")], SHORTEST),
        ([("cache-control", "max-age")], SHORTEST),
        ([("cache-control", "max-age=" + "9" * 400)], SHORTEST),
        ([("cache-control", "max-age=99999999999")], LONGEST),
        ([("cache-control", "no-store, max-age=600")], SHORTEST),
        ([("cache-control", "no-cache")], SHORTEST),
        ([("expires", "Wed, 25 Nov 2026 04:10:00 GMT")], 600),
        ([("expires", "Wed, 25 Nov 2026 04:10:00 GMT"), DATE], 600),
        ([("expires", "Thu, 01 Jan 2099 00:00:00 GMT")], LONGEST),
        ([("expires", "Wed, 25 Nov 2020 04:10:00 GMT")], SHORTEST),
        ([("expires", "0")], SHORTEST),
        ([("expires", "next week")], SHORTEST),
    ],
)
def test_the_lifetime_by_the_headers(headers: list[tuple[str, str]], seconds: float) -> None:
    assert lifetime(headers, NOW) == seconds


def test_the_servers_clock_may_be_wrong() -> None:
    """Expires counts from the server's own Date."""
    headers = [("expires", "Wed, 25 Nov 2020 04:10:00 GMT"),
               ("date", "Wed, 25 Nov 2020 04:00:00 GMT")]
    assert lifetime(headers, NOW) == 600


NAMES = st.sampled_from(["cache-control", "expires", "age", "date"])
VALUES = st.text() | st.from_regex(r"(max-age|no-store)=?[0-9]*,?")


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_any_headers_give_a_time_between_the_limits(headers: list[tuple[str, str]]) -> None:
    assert SHORTEST <= lifetime(headers, NOW) <= LONGEST


CHANCES = st.floats(0, 1)


def test_pauses_grow_up_to_a_limit() -> None:
    pauses = [retry_after(failures, 1.0) for failures in range(1, 10)]
    assert pauses[:3] == [5, 10, 20]
    assert pauses == sorted(pauses)
    assert retry_after(9, 1.0) == retry_after(10_000, 1.0) == LONGEST_PAUSE
    assert retry_after(1, 0.0) == 2.5


@given(st.integers(1, 100), CHANCES)
def test_a_pause_is_shortened_by_half_at_most(failures: int, chance: float) -> None:
    longest = retry_after(failures, 1.0)
    assert longest / 2 <= retry_after(failures, chance) <= longest


@pytest.mark.parametrize(("seconds", "earliest", "latest"), [
    (60, 60, 75), (70, 60, 75), (75, 60, 75), (100, 80, 100), (3600, 2880, 3600),
    (LONGEST, 0.8 * LONGEST, LONGEST),
])
def test_an_answer_is_fetched_again_shortly_before_it_is_stale(
    seconds: float, earliest: float, latest: float
) -> None:
    assert refresh_after(seconds, 0.0) == earliest
    assert refresh_after(seconds, 1.0) == latest


@given(st.floats(SHORTEST, LONGEST), CHANCES)
def test_a_refresh_is_never_within_a_minute_nor_much_too_late(
    seconds: float, chance: float
) -> None:
    assert SHORTEST <= refresh_after(seconds, chance) <= max(seconds, SHORTEST + 15)


@given(CHANCES)
def test_a_client_with_a_new_key_waits_a_few_seconds_at_most(chance: float) -> None:
    assert 0 <= unknown_kid_delay(60, chance) <= 3


@given(st.floats(0, 60, exclude_max=True), CHANCES)
def test_repeated_fetches_for_unknown_keys_are_a_minute_apart_and_spread(
    since: float, chance: float
) -> None:
    moment = since + unknown_kid_delay(since, chance)
    assert moment == pytest.approx(60 + 30 * chance)
