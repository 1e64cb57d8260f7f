"""Access tokens: what passes, what does not, and why."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto import jwe, jwk, jws

from envelope.keys import KeyRing
from envelope.tokens import Claims, TokenExpectations, TokenRefusal, verify

NOW = 1_000_000.0
EXPECTED = TokenExpectations("locate", "mlab1")
KINDS = {
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"}, "ES256": {"kty": "EC", "crv": "P-256"},
    "RS256": {"kty": "RSA", "size": 2048},
}
KEYS = {alg: jwk.JWK.generate(kid=alg, alg=alg, use="sig", **how) for alg, how in KINDS.items()}
RING = KeyRing.from_jwk_set_text(
    json.dumps({"keys": [k.export_public(as_dict=True) for k in KEYS.values()]}).encode(), "test"
)
GOOD = {"iss": "locate", "aud": ["mlab1"], "sub": "ndt", "exp": NOW + 60, "jti": "j"}


def b64(raw: bytes | str) -> str:
    raw = raw.encode() if isinstance(raw, str) else raw
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: bytes | dict, alg: str = "EdDSA", **header: object) -> str:
    """Signed properly, whatever the header says besides."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    protected = b64(json.dumps({"alg": alg, "kid": alg, **header}))
    core = jws.JWSCore(alg, KEYS[alg], protected_json(protected), raw)
    return f"{protected}.{b64(raw)}.{core.sign()['signature']}"


def protected_json(protected: str) -> str:
    return base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)).decode()


def judge(token: str, expected: TokenExpectations = EXPECTED) -> Claims | TokenRefusal:
    return verify(token, RING, expected, NOW)


def reason(token: str) -> str:
    verdict = judge(token)
    return verdict.reason if isinstance(verdict, TokenRefusal) else "taken"


@pytest.mark.parametrize("alg", KINDS)
def test_each_algorithm_passes_with_its_own_key_only(alg) -> None:
    """The key that `kid` names decides the algorithm."""
    assert reason(signed(GOOD, alg)) == "taken"
    for other in KINDS.keys() - {alg}:
        assert reason(signed(GOOD, alg, kid=other)) == "algorithm"


def test_the_claims_are_read() -> None:
    """As they stand in the token."""
    claims = judge(signed({**GOOD, "aud": "mlab1", "nbf": NOW, "iat": NOW - 1}))
    assert claims == Claims("locate", "ndt", ("mlab1",), NOW + 60, NOW, NOW - 1, "j")


@pytest.mark.parametrize(("change", "expected"), [
    ({"exp": NOW}, "expired"), ({"exp": NOW + 0.001}, "taken"), ({"exp": None}, "claims"),
    ({"exp": "soon"}, "claims"), ({"exp": True}, "claims"), ({"exp": -1}, "claims"),
    ({"exp": 1e300}, "claims"), ({"exp": 10**30}, "claims"), ({"nbf": NOW + 1}, "not-yet-valid"),
    ({"iat": NOW + 1}, "not-yet-valid"), ({"nbf": NOW}, "taken"), ({"iss": "x"}, "issuer"),
    ({"iss": ["locate"]}, "claims"), ({"aud": ["mlab2"]}, "audience"), ({"aud": []}, "audience"),
    ({"aud": ["mlab2", "mlab1"]}, "taken"), ({"aud": {"mlab1": 1}}, "claims"),
    ({"aud": [1, "mlab1"]}, "claims"), ({"sub": 5}, "claims"), ({"jti": {}}, "claims"),
    ({"sub": "ünïcode"}, "taken"), ({"deep": [[[[[1]]]]]}, "taken"),
])
def test_claims_without_leeway(change, expected) -> None:
    """To the moment, and of the right type."""
    assert reason(signed({**GOOD, **change})) == expected


def test_no_machine_means_any_audience_and_no_exp_is_admissions_affair() -> None:
    """A service without tokens required may not know its name."""
    token = signed({k: v for k, v in GOOD.items() if k not in ("aud", "exp")})
    verdict = judge(token, TokenExpectations("locate", None))
    assert isinstance(verdict, Claims)
    assert verdict.expires is None
    assert reason(token) == "audience"


PAYLOAD = json.dumps(GOOD).encode()
_HEAD, _BODY, _SIGNATURE = signed(GOOD).split(".")
_SECRET = KEYS["RS256"].export_to_pem()
_HMAC = jwk.JWK(kty="oct", k=b64(_SECRET), kid="RS256")


def hmac_confusion() -> str:
    token = jws.JWS(PAYLOAD)
    token.add_signature(_HMAC, "HS256", json.dumps({"alg": "HS256", "kid": "RS256"}))
    return token.serialize(compact=True)


def nested() -> str:
    inner = jwe.JWE(signed(GOOD).encode(), json.dumps({"alg": "dir", "enc": "A128GCM"}))
    inner.add_recipient(jwk.JWK.generate(kty="oct", size=128))
    return inner.serialize(compact=True)


def with_header(header: bytes | str) -> str:
    return f"{b64(header)}.{_BODY}.{_SIGNATURE}"


def with_zeros(alg: str, count: int) -> str:
    return f"{signed(GOOD, alg).rpartition('.')[0]}.{b64(bytes(count))}"


STRANGER = jwk.JWK.generate(kty="OKP", crv="Ed25519")

ATTACKS = {
    "empty": ("", "malformed"),
    "one part": ("x", "malformed"),
    "two parts": (f"{_HEAD}.{_BODY}", "malformed"),
    "empty signature": (f"{_HEAD}.{_BODY}.", "malformed"),
    "empty payload": (f"{_HEAD}..{_SIGNATURE}", "malformed"),
    "alg none": (with_header('{"alg":"none","kid":"EdDSA"}'), "algorithm"),
    "alg nOnE": (with_header('{"alg":"nOnE","kid":"EdDSA"}'), "algorithm"),
    "alg missing": (with_header('{"kid":"EdDSA"}'), "algorithm"),
    "alg a list": (with_header('{"alg":["EdDSA"],"kid":"EdDSA"}'), "algorithm"),
    "hmac with the public key": (hmac_confusion(), "algorithm"),
    "embedded jwk": (signed(GOOD, jwk=STRANGER.export_public(as_dict=True), kid="x"),
                     "unknown-key"),
    "jku": (signed(GOOD, jku="https://evil.example/jwks", kid="x"), "unknown-key"),
    "x5c": (signed(GOOD, x5c=["AA=="], kid="x"), "unknown-key"),
    "kid a path": (signed(GOOD, kid="../../dev/null"), "unknown-key"),
    "kid a number": (signed(GOOD, kid=1), "unknown-key"),
    "kid null": (signed(GOOD, kid=None), "unknown-key"),
    "crit": (signed(GOOD, crit=["exp"]), "malformed"),
    "crit empty": (signed(GOOD, crit=[]), "malformed"),
    "b64": (signed(GOOD, b64=True), "malformed"),
    "zip": (signed(GOOD, zip="DEF"), "malformed"),
    "nested, says cty": (signed(GOOD, cty="JWT"), "malformed"),
    "an encrypted one": (nested(), "malformed"),
    "json serialization": (json.dumps({"payload": _BODY, "protected": _HEAD,
                                       "signature": _SIGNATURE}), "malformed"),
    "padding": (f"{_HEAD}=.{_BODY}.{_SIGNATURE}", "malformed"),
    "padded signature": (f"{_HEAD}.{_BODY}.{_SIGNATURE}==", "malformed"),
    "white space": (f"{_HEAD}.{_BODY}.{_SIGNATURE}\n", "malformed"),
    "leading space": (f" {_HEAD}.{_BODY}.{_SIGNATURE}", "malformed"),
    "standard alphabet": (".".join((_HEAD, _BODY, "+/" * 43)), "malformed"),
    "stray bits": (f"{_HEAD}.{_BODY}.{_SIGNATURE[:-1]}B", "malformed"),
    "header no object": (with_header('[]'), "malformed"),
    "header duplicate": (
        with_header('{"alg":"EdDSA","alg":"EdDSA","kid":"EdDSA"}'), "malformed"),
    "header utf-16": (with_header('{}'.encode('utf-16')), "malformed"),
    "header with a bom": (with_header(b'\xef\xbb\xbf{}'), "malformed"),
    "header deep": (with_header("[" * 3000 + "]" * 3000), "malformed"),
    "too long": (".".join((_HEAD, b64(b" " * 9000), _SIGNATURE)), "malformed"),
    "duplicate claim": (signed(PAYLOAD[:-1] + b',"sub":"ndt"}'), "claims"),
    "nan": (signed(PAYLOAD[:-1] + b',"x":NaN}'), "claims"),
    "infinity": (signed(PAYLOAD[:-1] + b',"x":-Infinity}'), "claims"),
    "a long number": (signed(PAYLOAD[:-1] + b',"x":' + b"9" * 5000 + b"}"), "claims"),
    "payload no object": (signed(b"[1]"), "claims"),
    "payload not utf-8": (signed(b'{"iss":"\xff"}'), "claims"),
    "payload deep": (signed(b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}"), "claims"),
    "psychic signature": (
        with_zeros("ES256", 64), "signature"),
    "short ecdsa signature": (
        with_zeros("ES256", 63), "signature"),
    "long ecdsa signature": (
        with_zeros("ES256", 66), "signature"),
    "short rsa signature": (
        with_zeros("RS256", 255), "signature"),
    "another's payload": (".".join((_HEAD, b64(b"{}"), _SIGNATURE)), "signature"),
    "not ascii": ("é.é.é", "malformed"),
    "a lone surrogate": ("\ud800.a.a", "malformed"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_fail_for_a_fixed_reason(name) -> None:
    """RFC 8725 and the public collections."""
    token, expected = ATTACKS[name]
    assert reason(token) == expected


@given(text=st.text(max_size=300) | st.from_regex(r"[\w.-]{0,80}\.[\w-]{0,80}\.[\w-]{0,90}"))
def test_any_text_is_judged(text) -> None:
    """Claims or a refusal; never an exception, and never claims without a signature."""
    assert isinstance(judge(text), TokenRefusal)


@given(place=st.integers(0, len(signed(GOOD)) - 1), character=st.sampled_from("Ab0-_.=+ "))
def test_no_changed_token_passes(place, character) -> None:
    """Whatever single character is changed."""
    good = signed(GOOD)
    changed = good[:place] + character + good[place + 1:]
    assert (reason(changed) == "taken") == (changed == good)
