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
    pause,
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


def test_pauses_grow_up_to_a_limit() -> None:
    pauses = [pause(failures) for failures in range(1, 10)]
    assert pauses[:3] == [5, 10, 20]
    assert pauses == sorted(pauses)
    assert pause(9) == pause(10_000) == LONGEST_PAUSE
