"""What checking a token costs at most, counted in calls: anybody can send one."""

from __future__ import annotations

import pytest

from envelope.credentials.tokens import LONGEST_TOKEN
from tests.support.callcounter import CallCounter
from tests.support.tokenattacks import ATTACKS
from tests.support.tokenmaking import GOOD, KINDS, PAYLOAD, b64, reason, signed, signed_as_is

# Calls of Python functions for the plainest good token, and for each letter of a longer one.
FEW, EACH = 300, 2
_HEADER = '{"alg":"EdDSA","kid":"EdDSA",'


def in_header(text: str) -> str:
    """A header of as many bytes as a token has room for, filled with `text`."""
    room = LONGEST_TOKEN * 3 // 4 - 200
    return signed_as_is((_HEADER + '"x":').encode() + (text.encode() * room)[:room], b"{}")


def in_payload(text: str) -> str:
    room = LONGEST_TOKEN * 3 // 4 - 300
    return signed(PAYLOAD[:-1] + b',"x":' + (text.encode() * room)[:room])


FILLINGS = {
    "lists": "[", "objects": '{"a":', "empty lists": "[[],", "empty objects": "[{},",
    "quotes": '"', "escaped quotes": '\\"', "one text": "a", "backslashes": "\\",
    "digits": "9", "a fraction": "0.", "a power": "1e9", "commas": ",", "blanks": " ",
    "escapes": "\\u0061", "names": '"a":1,', "high letters": "é",
}
LONG = {
    **{f"header of {name}": in_header(text) for name, text in FILLINGS.items()},
    **{f"payload of {name}": in_payload(text) for name, text in FILLINGS.items()},
    "payload of many objects": signed(
        PAYLOAD[:-1] + b',"x":[' + b"{}," * 1900 + b"{}]}"),
    "payload of many names": signed(
        {**GOOD, **{f"n{n}": n for n in range(400)}}),
    "dots": "." * LONGEST_TOKEN,
    "letters": "A" * LONGEST_TOKEN,
    "letters and two dots": "A" * 2700 + "." + "A" * 2700 + "." + "A" * 2700,
    "a long signature": ".".join((*signed(GOOD).split(".")[:2], b64(bytes(5900)))),
}


@pytest.mark.parametrize("name", LONG)
def test_the_cost_grows_with_the_length_alone(name) -> None:
    """And at most one signature is checked."""
    token = LONG[name]
    assert 4000 < len(token) <= LONGEST_TOKEN
    with CallCounter() as work:
        reason(token)
    assert work.calls <= FEW + EACH * len(token)
    assert work.builtin["verify"] <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_costs_more(name) -> None:
    token = ATTACKS[name][0]
    with CallCounter() as work:
        reason(token)
    assert work.calls <= FEW + EACH * len(token)
    assert work.builtin["verify"] <= 1


@pytest.mark.parametrize("size", [8193, 100_000, 10_000_000])
def test_a_token_that_is_too_long_is_not_read(size) -> None:
    with CallCounter() as work:
        assert reason("A" * size) == "malformed"
    assert work.calls <= 10


@pytest.mark.parametrize("alg", KINDS)
def test_a_signature_is_checked_only_for_a_known_key(alg) -> None:
    for token, checks in ((signed(GOOD, alg), 1), (signed(GOOD, alg, kid="x"), 0)):
        with CallCounter() as work:
            reason(token)
        assert work.builtin["verify"] == checks
