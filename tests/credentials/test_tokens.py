"""Access tokens: which are accepted, and for which reason others are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jwcrypto.jws import JWS

from envelope.credentials.keys import KeyRing
from envelope.credentials.tokens import (
    Claims,
    TokenExpectations,
    TokenReason,
    TokenRefusal,
    _jws,
    _signed,
    verify,
)
from tests.support.ambiguoustokens import WRITINGS
from tests.support.tokenattacks import ATTACKS
from tests.support.tokenforgeries import FORGERIES
from tests.support.tokenmaking import (
    EXPECTED,
    GOOD,
    KEYS,
    KINDS,
    NOW,
    RING,
    STRANGER,
    judge,
    reason,
    signed,
)


@pytest.mark.parametrize("alg", KINDS)
def test_each_algorithm_passes_with_its_own_key_only(alg) -> None:
    """The key that `kid` names decides the algorithm."""
    assert reason(signed(GOOD, alg)) == "taken"
    for other in KINDS.keys() - {alg}:
        assert reason(signed(GOOD, alg, kid=other)) == "algorithm"


def test_the_claims_are_read() -> None:
    token = signed({**GOOD, "aud": "mlab1", "nbf": NOW, "iat": NOW - 1, "jti": "a1"})
    claims = judge(token)
    assert isinstance(claims, Claims)
    assert claims == Claims(
        "locate", "ndt", ("mlab1",), NOW + 60, NOW, NOW - 1, claims.token_id, "a1"
    )


def test_the_digest_of_jti() -> None:
    """16 bytes, the same for one text and one key; nothing for no text."""

    def digest(jti: str | None, key: bytes = b"secret") -> bytes | None:
        claims = {**GOOD, "jti": jti}
        if jti is None:
            del claims["jti"]
        found = judge(signed(claims), TokenExpectations("locate", "mlab1", (), key))
        assert isinstance(found, Claims)
        return found.token_id

    assert digest(None) is None
    assert digest("") is None
    assert digest("x" * 5000) == digest("x" * 5000)
    assert len({digest("a"), digest("b"), digest("a", b"other"), digest("a ")}) == 4
    assert len(digest("a") or b"") == 16


@pytest.mark.parametrize("jti", ["a\nb", "\x1b[2J", "\u202eabc", "\u2066", "x" * 65, "\u00a0"])
def test_a_jti_that_could_harm_the_log_is_a_digest_alone(jti: str) -> None:
    claims = judge(signed({**GOOD, "jti": jti}))
    assert isinstance(claims, Claims)
    assert claims.jti is None
    assert claims.token_id is not None


def test_the_claims_for_the_log_are_those_that_were_asked_for() -> None:
    token = signed({**GOOD, "name": "x", "size": 2})
    found = judge(token, TokenExpectations("locate", "mlab1", ("name", "absent")))
    assert isinstance(found, Claims)
    assert found.for_log == {"name": "x"}


@pytest.mark.parametrize(("change", "expected"), [
    ({"exp": NOW}, "expired"), ({"exp": NOW + 0.001}, "taken"), ({"exp": None}, "claims"),
    ({"exp": "soon"}, "claims"), ({"exp": True}, "claims"), ({"exp": -1}, "expired"),
    ({"exp": 1e300}, "claims"), ({"exp": 10**30}, "claims"), ({"nbf": NOW + 1}, "not-yet-valid"),
    ({"iat": NOW + 1}, "not-yet-valid"), ({"nbf": NOW}, "taken"), ({"iss": "x"}, "issuer"),
    ({"iss": ["locate"]}, "claims"), ({"aud": ["mlab2"]}, "audience"), ({"aud": []}, "audience"),
    ({"aud": ["mlab2", "mlab1"]}, "taken"), ({"aud": {"mlab1": 1}}, "claims"),
    ({"aud": [1, "mlab1"]}, "claims"), ({"sub": 5}, "claims"), ({"jti": {}}, "claims"),
    ({"nbf": True}, "claims"), ({"iat": "1"}, "claims"), ({"nbf": None}, "claims"),
    ({"exp": [NOW + 60]}, "claims"), ({"exp": 1e12}, "taken"), ({"exp": 1e12 + 1}, "claims"),
    ({"iss": ""}, "issuer"), ({"iss": None}, "claims"), ({"iss": "Locate"}, "issuer"),
    ({"aud": "mlab1"}, "taken"), ({"aud": "mlab"}, "audience"), ({"aud": ["mlab1.x"]}, "audience"),
    ({"aud": None}, "claims"), ({"aud": [["mlab1"]]}, "claims"), ({"sub": None}, "claims"),
    ({"sub": "\ud800"}, "claims"), ({"jti": "\udfff"}, "claims"),
    ({"sub": "ünïcode"}, "taken"), ({"deep": [[[[[1]]]]]}, "taken"),
    ({"nbf": -1}, "taken"), ({"iat": -1.5}, "taken"), ({"nbf": -1e12, "iat": -0.0}, "taken"),
    ({"nbf": -1e12 - 1}, "claims"), ({"iat": -1e300}, "claims"), ({"exp": -1e12 - 1}, "claims"),
    ({"exp": 0}, "expired"), ({"exp": -0.5}, "expired"), ({"nbf": False}, "claims"),
    ({"iat": -1, "nbf": NOW + 1}, "not-yet-valid"), ({"nbf": -(10**19)}, "claims"),
])
def test_claims_without_leeway(change, expected) -> None:
    """Times are exact, and types are checked."""
    assert reason(signed({**GOOD, **change})) == expected


@pytest.mark.parametrize("alg", KINDS)
def test_nothing_of_one_token_stays_for_the_next(alg) -> None:
    """All tokens are checked with one `JWS` object; each verdict is that of the token alone."""
    good = signed(GOOD, alg)
    for token, said in ATTACKS.values():
        assert reason(good) == "taken"
        assert reason(token) == said
        assert reason(good) == "taken"
    # Past the checks that come before it, the object itself.
    for other in KINDS:
        assert _signed(good, RING[alg])
        assert _signed(good, RING[other]) == (other == alg)
        for broken in ("", "no token", good[:-4], good.rpartition(".")[0] + ".", "{}"):
            assert _signed(good, RING[alg])
            assert not _signed(broken, RING[alg])


def test_the_shared_jws_object_holds_what_it_is_known_to_hold() -> None:
    """An attribute that a new jwcrypto adds has to be looked at before it is shared."""
    assert reason(signed(GOOD)) == "taken"
    assert set(vars(_jws)) == {
        "objects", "verifylog", "_allowed_algs", "header_registry",
    }
    assert dict(_jws.header_registry) == dict(JWS().header_registry)


def test_without_machine_any_audience_is_accepted_and_exp_may_be_missing() -> None:
    """Admission, not the token check, requires `exp`."""
    token = signed({k: v for k, v in GOOD.items() if k not in ("aud", "exp")})
    verdict = judge(token, TokenExpectations("locate", None))
    assert isinstance(verdict, Claims)
    assert verdict.expires is None
    assert reason(token) == "audience"


@pytest.mark.parametrize("number", [10**19, 10**30, -(10**300), 1e300])
def test_a_large_number_in_a_claim_of_its_own_is_no_fault(number: float) -> None:
    assert reason(signed({**GOOD, "measurement": number})) == "taken"


def test_a_token_without_an_issuer_is_refused() -> None:
    """Even if the expected issuer is empty."""
    token = signed({k: v for k, v in GOOD.items() if k != "iss"})
    assert reason(token) == "issuer"
    assert judge(token, TokenExpectations("", "mlab1")) == TokenRefusal(TokenReason.ISSUER)


def test_without_keys_every_token_is_refused() -> None:
    assert verify(signed(GOOD), KeyRing(), EXPECTED, NOW) == TokenRefusal(TokenReason.UNKNOWN_KEY)


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_refused_for_its_reason(name) -> None:
    """From RFC 8725 and public collections."""
    token, expected = ATTACKS[name]
    assert reason(token) == expected


def test_the_table_of_attacks_is_complete() -> None:
    """No name is there twice, and it has every reason but those of time and of a missing token."""
    assert len(ATTACKS) == len(FORGERIES) + len(WRITINGS)
    assert {said for _, said in ATTACKS.values()} == {
        "malformed", "algorithm", "unknown-key", "signature", "claims", "issuer", "audience"}
    assert len(ATTACKS) >= 200


def test_a_token_may_be_8_kb_long_and_not_a_byte_longer() -> None:
    """8192 characters, as in the URL."""
    lengths = {}
    for pad in range(5940, 5970):
        token = signed({**GOOD, "pad": "x" * pad})
        lengths[len(token)] = reason(token)
    assert min(lengths) < 8192 < max(lengths)
    assert {length: said for length, said in lengths.items() if length <= 8192} == dict.fromkeys(
        (length for length in lengths if length <= 8192), "taken")
    assert {said for length, said in lengths.items() if length > 8192} == {"malformed"}


@pytest.mark.parametrize(("count", "expected"), [(32, "taken"), (33, "malformed")])
def test_a_header_has_at_most_32_escapes(count, expected) -> None:
    """Scanning a header full of them takes long, and anybody can send one."""
    assert reason(signed(GOOD, x="\n" * count)) == expected


@pytest.mark.parametrize("header", [
    {"typ": "JWT"}, {"typ": "at+jwt"}, {"x5c": ["AA=="]}, {"x5c": []}, {"jku": "http://x"},
    {"jwk": {}}, {"jwk": STRANGER.export_public(as_dict=True)}, {"x5t": ""}, {"x5u": "file:///"},
    {"ünïcode": None}, {"x": [[[[1]]]]}, {"d": "AAAA"}, {"epk": 5},
])
def test_other_header_members_are_ignored(header) -> None:
    """RFC 7515 section 4; among them keys that the header offers."""
    assert reason(signed(GOOD, **header)) == "taken"
    assert reason(signed(GOOD, **header, kid="x")) == "unknown-key"


@pytest.mark.parametrize("header", [
    {"jwk": STRANGER.export_private(as_dict=True)},
    {"jwk": KEYS["EdDSA"].export_private(as_dict=True)},
    {"jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB", "qi": "AAAA"}},
    {"jwk": {"kty": "oct", "k": "AAAA"}}, {"jwk": {"kty": "oct"}}, {"jwk": {"d": None}},
    {"jwk": {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "priv": "AAAA"}},
    {"jwk": "x"}, {"jwk": [{}]}, {"jwk": None}, {"jku": {}}, {"x5u": 5}, {"x5c": 5},
    {"x5c": "AA=="}, {"x5c": [5]}, {"x5t": []}, {"x5t#S256": None}, {"typ": 5},
])
def test_what_a_header_must_not_carry_is_malformed(header) -> None:
    """RFC 7515 section 4.1: `jwk` is a public key. Other verifiers refuse such tokens, too."""
    assert reason(signed(GOOD, **header)) == "malformed"
    assert reason(signed(GOOD, **header, kid="x")) == "malformed"


def test_exp_is_exact() -> None:
    """The same token is refused once `exp` is reached."""
    token = signed(GOOD)
    late = TokenRefusal(TokenReason.EXPIRED)
    assert isinstance(verify(token, RING, EXPECTED, math.nextafter(NOW + 60, 0)), Claims)
    assert verify(token, RING, EXPECTED, NOW + 60) == late
    assert verify(token, RING, EXPECTED, 1e15) == late


@given(text=st.text(max_size=300) | st.from_regex(r"[\w.-]{0,80}\.[\w-]{0,80}\.[\w-]{0,90}"))
def test_any_text_is_accepted_or_refused(text) -> None:
    """Never an exception, and never claims without a valid signature."""
    assert isinstance(judge(text), TokenRefusal)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.sampled_from(
    ["alg", "kid", "typ", "cty", "jwk", "jku", "x5c", "x5u", "x5t", "x5t#S256", "crit", "b64",
     "zip", "enc", "epk", "p2c", "url", "nonce"])
CLAIMS = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "nonce"])


@given(header=st.dictionaries(HEADERS, ANYTHING, max_size=4))
@example(header={"kid": 10**400})
def test_any_header_is_accepted_or_refused(header) -> None:
    """All are signed with a good key; an accepted one names that key."""
    token = signed(GOOD, **header)
    if reason(token) == "taken":
        assert header.keys().isdisjoint(("crit", "b64", "zip", "enc", "cty"))
        assert isinstance(header.get("jwk", {}), dict)
        assert header.get("alg", "EdDSA") == header.get("kid", "EdDSA") == "EdDSA"


@given(claims=st.dictionaries(CLAIMS, ANYTHING, max_size=7))
def test_any_claims_are_accepted_or_refused(claims) -> None:
    """Accepted ones have the types that the rest of the program relies on."""
    verdict = judge(signed({**GOOD, **claims}))
    if isinstance(verdict, Claims):
        times = (verdict.expires, verdict.not_before, verdict.issued_at)
        assert all(type(time) is float and math.isfinite(time) for time in times if time)
        assert all(isinstance(name, str) for name in verdict.audience)
        assert isinstance(verdict.subject, str | None)


@given(payload=st.binary(max_size=200))
def test_a_payload_that_is_no_json_is_refused(payload) -> None:
    """Even with a good signature."""
    assert isinstance(judge(signed(payload or b"x")), TokenRefusal)


GOOD_TOKENS = {alg: signed(GOOD, alg) for alg in KINDS}


@given(alg=st.sampled_from(sorted(KINDS)), data=st.data(),
       character=st.sampled_from("Ab0-_.=+ ") | st.characters())
def test_a_changed_token_is_refused(alg, data, character) -> None:
    """Any one character is changed, removed or inserted."""
    good = GOOD_TOKENS[alg]
    place = data.draw(st.integers(0, len(good) - 1))
    for rest in (good[place:], good[place + 1:]):
        for inserted in ("", character):
            changed = good[:place] + inserted + rest
            assert (reason(changed) == "taken") == (changed == good)
