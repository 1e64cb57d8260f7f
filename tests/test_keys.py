"""Which keys are taken, and what is said of the others."""

from __future__ import annotations

import json

import pytest
from jwcrypto import jwk

from envelope.keys import KeyFileError, KeyRing, load_key_ring

ED = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="ed")
EC = jwk.JWK.generate(kty="EC", crv="P-256", kid="ec")
RSA = jwk.JWK.generate(kty="RSA", size=2048, kid="rsa")
WEAK = jwk.JWK.generate(kty="RSA", size=1024, kid="weak")


def public(key: jwk.JWK, **changes: object) -> dict:
    return {k: v for k, v in {**key.export_public(as_dict=True), **changes}.items()
            if v is not None}


def b64(number: int) -> str:
    import base64
    raw = number.to_bytes((number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def roca(bits: int = 2048) -> int:
    """A modulus with the fingerprint: a power of 65537 modulo the primes' product."""
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79,
              83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167)
    product = 1
    for prime in primes:
        product *= prime
    remainder = pow(65537, 12345, product)
    return ((1 << (bits - 1)) // product + 1) * product + remainder


def test_each_kind_is_taken_and_named_by_its_kid() -> None:
    """An absent `alg` follows from the key itself."""
    text = json.dumps({"keys": [public(k) for k in (ED, EC, RSA)]})
    ring = KeyRing.from_jwk_set_text(text.encode(), "f")
    assert {k.kid: (k.alg, k.signature_size) for k in ring.values()} == {
        "ed": ("EdDSA", 64), "ec": ("ES256", 64), "rsa": ("RS256", 256)}


@pytest.mark.parametrize(("text", "said"), [
    ("", "not a JWK"), ("[]", "not a JWK"), ("{}", "kid"), ('{"keys": []}', "no keys"),
    ('{"keys": {}}', "no keys"), ('{"keys": [1]}', "no JSON object"),
    ('{"kty":"oct","k":"AAAA","kid":"x"}', "symmetric"),
    (ED.export_private(), "private"),
    (json.dumps(public(ED, kid=None)), "kid"),
    (json.dumps(public(ED, kid="")), "kid"),
    (json.dumps(public(ED, alg="RS256")), "alg"),
    (json.dumps(public(ED, use="enc")), "use"),
    (json.dumps(public(ED, key_ops=["sign"])), "key_ops"),
    (json.dumps(public(ED, crv="X25519")), "neither"),
    (json.dumps(public(ED, x="AA")), "numbers"),
    (json.dumps(public(EC, x=public(EC)["y"])), "numbers"),
    (json.dumps(public(WEAK)), "2048"),
    (json.dumps(public(RSA, e=b64(1))), "exponent"),
    (json.dumps(public(RSA, e=b64(65536))), "exponent"),
    (json.dumps(public(RSA, n="!")), "cannot be read"),
    (json.dumps(public(RSA, n=b64(roca()))), "ROCA"),
    (json.dumps({"keys": [public(ED), public(EC, kid="ed")]}), "same kid"),
])
def test_what_is_wrong_is_said_with_the_files_name(tmp_path, text, said) -> None:
    """One line, and nothing of the key itself."""
    path = tmp_path / "the.key"
    path.write_text(text)
    with pytest.raises(KeyFileError) as caught:
        load_key_ring([path])
    message = str(caught.value)
    assert "the.key" in message
    assert said in message
    assert "\n" not in message
    assert str(ED.export_private(as_dict=True)["d"]) not in message


def test_files_are_put_together(tmp_path) -> None:
    """And the same name in two of them is refused, as is a file that is not there."""
    for name, key in (("a", ED), ("b", EC), ("c", ED)):
        (tmp_path / name).write_text(key.export_public())
    ring = load_key_ring([tmp_path / "a", tmp_path / "b"])
    assert ring.keys() == {"ed", "ec"}
    with pytest.raises(KeyFileError, match="same kid"):
        load_key_ring([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(KeyFileError, match="No such file"):
        load_key_ring([tmp_path / "none"])
