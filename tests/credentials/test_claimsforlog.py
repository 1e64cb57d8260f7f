"""Which claims may be logged: short printable texts, and numbers."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.credentials.claimsforlog import claims_for_log, text_for_log

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@pytest.mark.parametrize("value", ["", "ndt7", "a b", "ü" * 64, 0, -1, 2.5, 10**19])
def test_what_fits(value: object) -> None:
    assert claims_for_log({"name": value}, ["name"]) == {"name": value}


@pytest.mark.parametrize("value", [
    True, False, None, [], ["a"], {}, "x" * 65, "x" * 8000, "a\nb", "a\rb", "a\tb", "\x1b[31m",
    "\x00", "\x7f", "\x9b", "\u200b", "\u202e", "\u2066", "\u200f", "\u2028", "\u00a0", "\ufeff",
    "\ud800", "\U000e0041",
])
def test_what_does_not_fit_is_left_out(value: object) -> None:
    assert claims_for_log({"name": value, "other": 1}, ["name", "other"]) == {"other": 1}


@given(payload=st.dictionaries(st.sampled_from("abc"), JSON),
       names=st.lists(st.sampled_from("abcd")))
def test_nothing_else_gets_through(payload: dict[str, object], names: list[str]) -> None:
    for name, value in claims_for_log(payload, names).items():
        assert name in names
        assert value == payload[name]
        assert type(value) in (str, int, float)
        if isinstance(value, str):
            assert len(value) <= 64
            assert all(unicodedata.category(c)[0] != "C" for c in value)


@given(st.text(max_size=80))
def test_a_text_is_whole_or_left_out(text: str) -> None:
    assert text_for_log(text) in (text, None)
