"""Durations in the options' syntax."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.config.values import parse_duration


@pytest.mark.parametrize(("text", "seconds"), [
    ("90", 90), ("90s", 90), ("1m30s", 90), ("2h", 7200), ("1d", 86400), ("1d2h3m4s", 93784),
    ("0", 0), ("0s", 0), ("0.25", 0.25), ("1m0.5s", 60.5), ("90m", 5400), (" 5M ", 300),
    ("500ms", 0.5), ("1m30s500ms", 90.5), ("1m5ms", 60.005),
    ("9" * 20, 1e20),
])
def test_durations_are_read(text, seconds) -> None:
    """Any unit may be left out, and its number may be of any size."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", [
    "", " ", "s", "-1", "+1", "-0", "1x", "nan", "inf", "infinity", "1e3", "0x10", "1_0", "1,5",
    "1 2", "1m 30s", "30s1m", "1s1m", "1m1m", "1.5m", ".5", "1.", "1..5", "1m30", "1ms1s", "1.5ms",
    "1" * 30, "1\x00", "١", "1m\n1s",  # noqa: RUF001
])
def test_other_texts_are_refused_in_one_line(text) -> None:
    with pytest.raises(ValueError, match="is not a duration such as") as caught:
        parse_duration(text)
    assert "\n" not in str(caught.value)


@given(days=st.integers(0, 99), hours=st.integers(0, 99), minutes=st.integers(0, 99),
       seconds=st.integers(0, 99))
def test_the_parts_are_added(days, hours, minutes, seconds) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert parse_duration(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@given(st.text() | st.from_regex(r"[0-9.dhms +-]{0,12}", fullmatch=True))
def test_any_text_is_a_finite_duration_or_a_value_error(text) -> None:
    """Never negative, never NaN, and no other exception."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0
