"""Access tokens: what passes, what does not, and why."""

from __future__ import annotations

import base64
import hmac
import json
import math
import zlib

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import example, given
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
STRANGER = jwk.JWK.generate(kty="OKP", crv="Ed25519")


def b64(raw: bytes | str) -> str:
    raw = raw.encode() if isinstance(raw, str) else raw
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: bytes | dict, alg: str = "EdDSA", /, **header: object) -> str:
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
    ({"nbf": True}, "claims"), ({"iat": "1"}, "claims"), ({"nbf": None}, "claims"),
    ({"exp": [NOW + 60]}, "claims"), ({"exp": 1e12}, "taken"), ({"exp": 1e12 + 1}, "claims"),
    ({"iss": ""}, "issuer"), ({"iss": None}, "claims"), ({"iss": "Locate"}, "issuer"),
    ({"aud": "mlab1"}, "taken"), ({"aud": "mlab"}, "audience"), ({"aud": ["mlab1.x"]}, "audience"),
    ({"aud": None}, "claims"), ({"aud": [["mlab1"]]}, "claims"), ({"sub": None}, "claims"),
    ({"sub": "\ud800"}, "claims"), ({"jti": "\udfff"}, "claims"),
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


def test_a_token_without_an_issuer_is_never_the_expected_one() -> None:
    """Not even where none is expected."""
    token = signed({k: v for k, v in GOOD.items() if k != "iss"})
    assert reason(token) == "issuer"
    assert judge(token, TokenExpectations("", "mlab1")) == TokenRefusal("issuer")


def test_a_key_named_by_its_alg_is_not_found_in_an_empty_ring() -> None:
    """Without keys nothing is taken."""
    assert verify(signed(GOOD), KeyRing(), EXPECTED, NOW) == TokenRefusal("unknown-key")


PAYLOAD = json.dumps(GOOD).encode()
_HEAD, _BODY, _SIGNATURE = signed(GOOD).split(".")


def hmac_confusion(kid: str, secret: bytes) -> str:
    core = f"{b64(json.dumps({'alg': 'HS256', 'kid': kid}))}.{b64(PAYLOAD)}"
    return f"{core}.{b64(hmac.digest(secret, core.encode(), 'sha256'))}"


def signed_by_a_stranger(**header: object) -> str:
    protected = json.dumps({"alg": "EdDSA", "kid": "EdDSA", **header})
    signature = jws.JWSCore("EdDSA", STRANGER, protected, PAYLOAD).sign()["signature"]
    return f"{b64(protected)}.{b64(PAYLOAD)}.{signature}"


def rsa_made_with(alg: str) -> str:
    """A sound signature of another RSA algorithm, by the very key."""
    token = jws.JWS(PAYLOAD)
    token.allowed_algs = [alg]
    bare = jwk.JWK(**{k: v for k, v in KEYS["RS256"].export(as_dict=True).items() if k != "alg"})
    token.add_signature(bare, alg, json.dumps({"alg": alg, "kid": "RS256"}))
    return token.serialize(compact=True)


def der_instead_of_raw() -> str:
    """The ECDSA signature as X.509 has it."""
    head, body, raw = signed(GOOD, "ES256").split(".")
    number = base64.urlsafe_b64decode(raw + "==")
    r, s = int.from_bytes(number[:32]), int.from_bytes(number[32:])
    return f"{head}.{body}.{b64(encode_dss_signature(r, s))}"


def nested() -> str:
    inner = jwe.JWE(signed(GOOD).encode(), json.dumps({"alg": "dir", "enc": "A128GCM"}))
    inner.add_recipient(jwk.JWK.generate(kty="oct", size=128))
    return inner.serialize(compact=True)


def with_header(header: bytes | str) -> str:
    return f"{b64(header)}.{_BODY}.{_SIGNATURE}"


def with_zeros(alg: str, count: int) -> str:
    return f"{signed(GOOD, alg).rpartition('.')[0]}.{b64(bytes(count))}"


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
    "alg NONE, no signature": (b64('{"alg":"NONE"}') + f".{_BODY}.", "malformed"),
    "alg eddsa": (with_header('{"alg":"eddsa","kid":"EdDSA"}'), "algorithm"),
    "alg with a blank": (with_header('{"alg":"EdDSA ","kid":"EdDSA"}'), "algorithm"),
    "alg null": (with_header('{"alg":null,"kid":"EdDSA"}'), "algorithm"),
    "alg an object": (with_header('{"alg":{},"kid":"EdDSA"}'), "algorithm"),
    "alg's name in capitals": (with_header('{"ALG":"EdDSA","kid":"EdDSA"}'), "algorithm"),
    "hmac with the public key in pem": (
        hmac_confusion("RS256", KEYS["RS256"].export_to_pem()), "algorithm"),
    "hmac with the public key as jwk": (
        hmac_confusion("EdDSA", KEYS["EdDSA"].export_public().encode()), "algorithm"),
    "hmac with the public bytes": (
        hmac_confusion("EdDSA", base64.urlsafe_b64decode(KEYS["EdDSA"].get("x") + "=")),
        "algorithm"),
    "hmac with nothing": (hmac_confusion("", b""), "algorithm"),
    "pss by the rsa key": (rsa_made_with("PS256"), "algorithm"),
    "sha-512 by the rsa key": (rsa_made_with("RS512"), "algorithm"),
    "a stranger's": (signed_by_a_stranger(), "signature"),
    "a stranger's, bringing the key": (
        signed_by_a_stranger(jwk=STRANGER.export_public(as_dict=True)), "signature"),
    "a stranger's, pointing to the key": (
        signed_by_a_stranger(jku="https://evil.example/jwks", x5u="file:///dev/zero"), "signature"),
    "a stranger's, with odd certificates": (
        signed_by_a_stranger(x5c=5, x5t=[], jwk="x", jku={}), "signature"),
    "embedded jwk": (signed(GOOD, jwk=STRANGER.export_public(as_dict=True), kid="x"),
                     "unknown-key"),
    "jku": (signed(GOOD, jku="https://evil.example/jwks", kid="x"), "unknown-key"),
    "x5c": (signed(GOOD, x5c=["AA=="], kid="x"), "unknown-key"),
    "kid a path": (signed(GOOD, kid="../../dev/null"), "unknown-key"),
    "kid a number": (signed(GOOD, kid=1), "unknown-key"),
    "kid null": (signed(GOOD, kid=None), "unknown-key"),
    "kid empty": (signed(GOOD, kid=""), "unknown-key"),
    "kid in capitals": (signed(GOOD, kid="EDDSA"), "unknown-key"),
    "kid with a blank": (signed(GOOD, kid="EdDSA "), "unknown-key"),
    "kid with a nul": (signed(GOOD, kid="EdDSA\0"), "unknown-key"),
    "kid sql": (signed(GOOD, kid="x' UNION SELECT 'k"), "unknown-key"),
    "kid a list": (signed(GOOD, kid=["EdDSA"]), "unknown-key"),
    "kid an object": (signed(GOOD, kid={"EdDSA": 1}), "unknown-key"),
    "kid half a character": (signed(GOOD, kid="\ud800"), "unknown-key"),
    "kid missing": (with_header('{"alg":"EdDSA"}'), "unknown-key"),
    "crit": (signed(GOOD, crit=["exp"]), "malformed"),
    "crit empty": (signed(GOOD, crit=[]), "malformed"),
    "b64": (signed(GOOD, b64=True), "malformed"),
    "zip": (signed(GOOD, zip="DEF"), "malformed"),
    "nested, says cty": (signed(GOOD, cty="JWT"), "malformed"),
    "an encrypted one": (nested(), "malformed"),
    "json serialization": (json.dumps({"payload": _BODY, "protected": _HEAD,
                                       "signature": _SIGNATURE}), "malformed"),
    "four parts": (f"{signed(GOOD)}.x", "malformed"),
    "dots only": ("..", "malformed"),
    "detached payload": (f"{_HEAD}..{_SIGNATURE}", "malformed"),
    "bearer": (f"Bearer {signed(GOOD)}", "malformed"),
    "nul": (f"{signed(GOOD)}\0", "malformed"),
    "line end inside": (f"{_HEAD}.{_BODY[:8]}\r\n{_BODY[8:]}.{_SIGNATURE}", "malformed"),
    "a fifth of a byte": (f"{_HEAD}.{_BODY}.{_SIGNATURE[:-1]}", "malformed"),
    "wide digits": (f"{_HEAD}.{_BODY}." + "\uff11" * 86, "malformed"),
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
    "header null": (with_header("null"), "malformed"),
    "header a text": (with_header('"x"'), "malformed"),
    "header duplicate kid": (
        with_header('{"alg":"EdDSA","kid":"x","kid":"EdDSA"}'), "malformed"),
    "header duplicate, escaped": (
        with_header('{"alg":"EdDSA","kid":"EdDSA","\\u006bid":"x"}'), "malformed"),
    "header duplicate, inside": (
        with_header('{"alg":"EdDSA","kid":"EdDSA","x":{"a":1,"a":1}}'), "malformed"),
    "header nan": (with_header('{"alg":"EdDSA","kid":"EdDSA","x":NaN}'), "malformed"),
    "header trailing comma": (with_header('{"alg":"EdDSA","kid":"EdDSA",}'), "malformed"),
    "header and more": (with_header('{"alg":"EdDSA","kid":"EdDSA"}{}'), "malformed"),
    "header with a comment": (with_header('{"alg":"EdDSA","kid":"EdDSA"}//'), "malformed"),
    "header utf-32": (with_header('{}'.encode('utf-32-le')), "malformed"),
    "header all quotes": (with_header('{"a":"' + '\\"' * 2900), "malformed"),
    "header deep, in objects": (with_header('{"a":' * 900 + "1" + "}" * 900), "malformed"),
    "header deep": (with_header("[" * 3000 + "]" * 3000), "malformed"),
    "too long": (".".join((_HEAD, b64(b" " * 9000), _SIGNATURE)), "malformed"),
    "duplicate claim, escaped": (signed(PAYLOAD[:-1] + b',"s\\u0075b":"ndt"}'), "claims"),
    "duplicate, deep inside": (signed(PAYLOAD[:-1] + b',"x":[{"y":{"a":1,"a":2}}]}'), "claims"),
    "exp infinite": (signed(PAYLOAD.replace(b"1000060.0", b"1e999")), "claims"),
    "exp hexadecimal": (signed(PAYLOAD.replace(b"1000060.0", b"0xF43C")), "claims"),
    "payload with a bom": (signed(b"\xef\xbb\xbf" + PAYLOAD), "claims"),
    "payload utf-16": (signed(PAYLOAD.decode().encode("utf-16")), "claims"),
    "payload overlong utf-8": (signed(PAYLOAD[:-1] + b',"x":"\xc0\xaf"}'), "claims"),
    "payload compressed": (signed(zlib.compress(PAYLOAD)), "claims"),
    "payload null": (signed(b"null"), "claims"),
    "payload a token": (signed(signed(GOOD).encode()), "claims"),
    "payload and more": (signed(PAYLOAD + b"{}"), "claims"),
    "duplicate claim": (signed(PAYLOAD[:-1] + b',"sub":"ndt"}'), "claims"),
    "nan": (signed(PAYLOAD[:-1] + b',"x":NaN}'), "claims"),
    "infinity": (signed(PAYLOAD[:-1] + b',"x":-Infinity}'), "claims"),
    "a long number": (signed(PAYLOAD[:-1] + b',"x":' + b"9" * 5000 + b"}"), "claims"),
    "payload no object": (signed(b"[1]"), "claims"),
    "payload not utf-8": (signed(b'{"iss":"\xff"}'), "claims"),
    "payload deep": (signed(b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}"), "claims"),
    "psychic signature": (
        with_zeros("ES256", 64), "signature"),
    "psychic, and eddsa": (with_zeros("EdDSA", 64), "signature"),
    "a long eddsa signature": (with_zeros("EdDSA", 65), "signature"),
    "ecdsa in der": (der_instead_of_raw(), "signature"),
    "long rsa signature": (with_zeros("RS256", 257), "signature"),
    "rsa of zeros": (with_zeros("RS256", 256), "signature"),
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


def test_a_token_may_be_8_kb_long_and_not_a_byte_longer() -> None:
    """Measured as it stands in the address."""
    lengths = {}
    for pad in range(5940, 5970):
        token = signed({**GOOD, "pad": "x" * pad})
        lengths[len(token)] = reason(token)
    assert min(lengths) < 8192 < max(lengths)
    assert {length: said for length, said in lengths.items() if length <= 8192} == dict.fromkeys(
        (length for length in lengths if length <= 8192), "taken")
    assert {said for length, said in lengths.items() if length > 8192} == {"malformed"}


@pytest.mark.parametrize(("count", "expected"), [(32, "taken"), (33, "malformed")])
def test_a_header_has_few_escapes(count, expected) -> None:
    """Since a header full of them takes long to scan, and anyone may send one."""
    assert reason(signed(GOOD, x="\n" * count)) == expected


@pytest.mark.parametrize("header", [
    {"typ": "JWT"}, {"typ": "at+jwt"}, {"typ": 5}, {"x5c": ["AA=="]}, {"x5c": 5}, {"jku": "http://x"},
    {"jwk": {}}, {"x5t": ""}, {"ünïcode": None}, {"x": [[[[1]]]]},
])
def test_what_else_a_header_says_is_ignored(header) -> None:
    """RFC 7515 section 4; a key that it offers is neither looked at nor in the way."""
    assert reason(signed(GOOD, **header)) == "taken"
    assert reason(signed(GOOD, **header, kid="x")) == "unknown-key"


def test_a_deadline_is_met_to_the_moment() -> None:
    """The same token, a little later."""
    token = signed(GOOD)
    late = TokenRefusal("expired")
    assert isinstance(verify(token, RING, EXPECTED, math.nextafter(NOW + 60, 0)), Claims)
    assert verify(token, RING, EXPECTED, NOW + 60) == late
    assert verify(token, RING, EXPECTED, 1e15) == late


@given(text=st.text(max_size=300) | st.from_regex(r"[\w.-]{0,80}\.[\w-]{0,80}\.[\w-]{0,90}"))
def test_any_text_is_judged(text) -> None:
    """Claims or a refusal; never an exception, and never claims without a signature."""
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
def test_any_header_is_judged(header) -> None:
    """Properly signed, whatever it holds; and what is taken names the key."""
    token = signed(GOOD, **header)
    if reason(token) == "taken":
        assert header.keys().isdisjoint(("crit", "b64", "zip", "enc", "cty"))
        assert header.get("alg", "EdDSA") == header.get("kid", "EdDSA") == "EdDSA"


@given(claims=st.dictionaries(CLAIMS, ANYTHING, max_size=7))
def test_any_claims_are_judged(claims) -> None:
    """And those taken are of the types that the rest of the program relies on."""
    verdict = judge(signed({**GOOD, **claims}))
    if isinstance(verdict, Claims):
        times = (verdict.expires, verdict.not_before, verdict.issued_at)
        assert all(type(time) is float and math.isfinite(time) for time in times if time)
        assert all(isinstance(name, str) for name in verdict.audience)
        assert {type(verdict.subject), type(verdict.token_id)} <= {str, type(None)}


@given(payload=st.binary(max_size=200))
def test_any_payload_is_judged(payload) -> None:
    """A good signature does not make claims of bytes."""
    assert isinstance(judge(signed(payload or b"x")), TokenRefusal)


GOOD_TOKENS = {alg: signed(GOOD, alg) for alg in KINDS}


@given(alg=st.sampled_from(sorted(KINDS)), data=st.data(),
       character=st.sampled_from("Ab0-_.=+ ") | st.characters())
def test_no_changed_token_passes(alg, data, character) -> None:
    """Whatever single character is changed, left out or put in."""
    good = GOOD_TOKENS[alg]
    place = data.draw(st.integers(0, len(good) - 1))
    for rest in (good[place:], good[place + 1:]):
        for inserted in ("", character):
            changed = good[:place] + inserted + rest
            assert (reason(changed) == "taken") == (changed == good)
