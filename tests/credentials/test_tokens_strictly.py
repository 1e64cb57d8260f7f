"""The product's reading of tokens against an independent, strict one: they never differ."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.referencejson import Unreadable, read_object
from tests.support.referencetokens import accepts, decode
from tests.support.tokenattacks import ATTACKS
from tests.support.tokenmaking import (
    GOOD,
    KEYS,
    KINDS,
    NOW,
    PAYLOAD,
    b64,
    reason,
    signed,
    signed_as_is,
)

PUBLIC = {kid: key.get_op_key("verify") for kid, key in KEYS.items()}
ALGS = st.sampled_from(sorted(KINDS))


def strictly(token: str) -> bool:
    return accepts(token, PUBLIC, "locate", "mlab1", NOW)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_strict_reading_accepts_no_attack(name) -> None:
    assert not strictly(ATTACKS[name][0])


# -- every good token passes -----------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES_PAST = st.integers(-(10**12), int(NOW)) | st.floats(-1e12, NOW)
TIMES_TO_COME = st.integers(int(NOW) + 1, 10**12) | st.floats(NOW + 0.001, 1e12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
AUDIENCES = st.just("mlab1") | st.lists(TEXTS, max_size=3).flatmap(
    lambda others: st.permutations(["mlab1", *others])
)
CLAIMS = st.fixed_dictionaries(
    {"iss": st.just("locate"), "aud": AUDIENCES},
    optional={
        "exp": TIMES_TO_COME, "nbf": TIMES_PAST, "iat": TIMES_PAST, "sub": TEXTS, "jti": TEXTS,
        "machine": VALUES, "ünïcode": VALUES,
    },
)
PUBLIC_JWKS = [key.export_public(as_dict=True) for key in KEYS.values()]
EXTRAS = st.fixed_dictionaries({}, optional={
    "typ": st.sampled_from(["JWT", "jwt", "at+jwt"]), "x5t": TEXTS, "jku": TEXTS,
    "x5c": st.lists(TEXTS, max_size=2), "jwk": st.sampled_from(PUBLIC_JWKS),
    "nonce": TEXTS.map(lambda text: text.replace("\\", "")),
})


@st.composite
def written(draw: Any, members: dict[str, Any], ascii_only: bool = True) -> bytes:
    """The same object in one of the many ways that JSON can be written."""
    names = draw(st.permutations(sorted(members)))
    blank = st.text(" \t\r\n", max_size=2)
    indent = draw(st.none() | st.integers(0, 3))
    pieces = [
        f"{draw(blank)}{json.dumps(name, ensure_ascii=ascii_only)}{draw(blank)}:{draw(blank)}"
        f"{json.dumps(members[name], ensure_ascii=ascii_only, indent=indent)}{draw(blank)}"
        for name in names
    ]
    return (draw(blank) + "{" + ",".join(pieces) + "}" + draw(blank)).encode()


@given(st.data(), ALGS, CLAIMS, EXTRAS, st.booleans())
def test_good_tokens_are_accepted_in_any_notation(data, alg, claims, extras, escaped) -> None:
    """Any order, spaces, escapes and number formats, with one audience or several."""
    header = data.draw(written({"alg": alg, "kid": alg, **extras}, False))
    token = signed_as_is(header, data.draw(written(claims, escaped)), alg)
    assert strictly(token)
    assert reason(token) == "taken"


@pytest.mark.parametrize("exp", [
    "4000000001", "4000000000.5", "4000000060.0", "4.00000006e9", "4.00000006E+9", "4000000060e0",
    "40000000600e-1", "1e12", "1000000000000", "4000000000.0000005",
])
def test_a_time_is_accepted_in_any_notation(exp) -> None:
    token = signed(PAYLOAD.replace(b"4000000060.0", exp.encode()))
    assert reason(token) == "taken"
    assert strictly(token)


UNUSED = st.dictionaries(
    st.sampled_from(["jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "typ"]),
    TEXTS | st.none() | st.integers(0, 9) | st.lists(TEXTS | st.none(), max_size=2)
    | st.dictionaries(
        st.sampled_from(["kty", "d", "k", "priv", "oth", "x", "D"]),
        st.sampled_from(["oct", "RSA", "AAAA", None]), max_size=3,
    ),
    max_size=3,
)


@given(UNUSED, ALGS)
def test_keys_in_a_header_are_read_as_by_the_strict_reader(unused, alg) -> None:
    """They are not used, and have to be public and of their type."""
    token = signed(GOOD, alg, **unused)
    assert strictly(token) == (reason(token) == "taken")


@given(st.sampled_from(["exp", "nbf", "iat"]), st.floats() | st.integers() | st.booleans())
def test_any_time_is_read_as_by_the_strict_reader(name, value) -> None:
    token = signed({**GOOD, name: value})
    assert strictly(token) == (reason(token) == "taken")


# -- what is taken is good -------------------------------------------------------------------

@given(st.data(), ALGS)
def test_a_changed_header_or_payload_is_read_as_by_the_strict_reader(data, alg) -> None:
    """With a good signature, and a few characters changed."""
    header, payload = bytearray(json.dumps({"alg": alg, "kid": alg}).encode()), bytearray(PAYLOAD)
    changed = data.draw(st.sampled_from([header, payload]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(changed) - 1))
        end = data.draw(st.integers(start, min(start + 3, len(changed))))
        changed[start:end] = data.draw(LETTERS)
    token = signed_as_is(bytes(header), bytes(payload), alg)
    assert strictly(token) == (reason(token) == "taken")


LETTERS = st.binary(max_size=4) | st.sampled_from([
    b"", b'"', b"\\", b",", b"{", b"}", b"[", b"]", b":", b"0", b"-", b"e", b".", b" ", b"\n",
    b"null", b"true", b"NaN", b"\\u0061", b"\\ud83d", b"\xc3\xa9", b"\xe2\x80\xa8",
    b'","', b"9" * 30,
])


@given(st.text(string.ascii_letters + string.digits + "-_=+/ .", max_size=12))
def test_base64url_is_read_as_by_the_strict_reader(text) -> None:
    """No padding, and no unused bits that are set."""
    from envelope.credentials.strictjson import decode_base64url

    try:
        strict: bytes | None = decode(text)
    except Unreadable:
        strict = None
    try:
        ours: bytes | None = decode_base64url(text)
    except ValueError:
        ours = None
    assert ours == strict
    if ours is not None:
        assert b64(ours) == text


JSON_TEXT = st.text('{}[]",:\\ud8390e+-.truefalsn \té', max_size=24) | VALUES.map(json.dumps)


@given(JSON_TEXT | st.binary(max_size=20).map(lambda raw: raw.decode("latin-1")))
def test_json_is_read_as_by_the_strict_reader(text) -> None:
    """The same objects are accepted and refused."""
    from envelope.credentials.strictjson import decode_object

    raw = b'{"x":' + text.encode() + b"}"
    try:
        strict: Any = read_object(raw, 16)
    except Unreadable:
        strict = None
    try:
        ours: Any = decode_object(raw)
    except (ValueError, RecursionError):
        ours = None
    # A whole number of 20 digits is a float on one side only.
    assert json.dumps(_floats(ours)) == json.dumps(strict)


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_floats(inner) for inner in value]
    # The sum makes a whole number a float, and minus nought nought.
    return value + 0.0 if type(value) in (int, float) else value


def test_a_good_token_is_accepted_by_both() -> None:
    for alg in KINDS:
        assert reason(signed(GOOD, alg)) == "taken"
        assert strictly(signed(GOOD, alg))
