"""Which keys are accepted, and the reasons for which others are refused."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto import jwk

from envelope.credentials.keys import KeyFileError, KeyRing
from tests.support.keyrings import key_ring, load_key_ring

ED = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="ed")
EC = jwk.JWK.generate(kty="EC", crv="P-256", kid="ec")
RSA = jwk.JWK.generate(kty="RSA", size=2048, kid="rsa")
WEAK = jwk.JWK.generate(kty="RSA", size=1024, kid="weak")


def okp(y: int) -> str:
    """A key whose point has this y; the sign of x is left out."""
    return base64.urlsafe_b64encode(y.to_bytes(32, "little")).rstrip(b"=").decode()


def public(key: jwk.JWK, **changes: object) -> dict:
    return {k: v for k, v in {**key.export_public(as_dict=True), **changes}.items()
            if v is not None}


def b64(number: int) -> str:
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


def next_prime(number: int) -> int:
    """By Fermat's little theorem; good enough for a test."""
    number += 2
    while pow(2, number - 1, number) != 1:
        number += 2
    return number


def close_primes() -> int:
    """The product of a 1024-bit prime and the next one."""
    text = RSA.export_private(as_dict=True)["p"]
    prime = int.from_bytes(base64.urlsafe_b64decode(text + "=="))
    return prime * next_prime(prime)


def test_each_kind_of_key_is_accepted() -> None:
    """An absent `alg` follows from the key itself."""
    text = json.dumps({"keys": [public(k) for k in (ED, EC, RSA)]})
    ring = key_ring(text)
    assert {k.kid: (k.alg, k.signature_size) for k in ring.values()} == {
        "ed": ("EdDSA", 64), "ec": ("ES256", 64), "rsa": ("RS256", 256)}


@pytest.mark.parametrize(("text", "said"), [
    ("", "not a JWK"), ("[]", "not a JWK"), ("{}", "kid"), ('{"keys": []}', "no keys"),
    ('{"keys": {}}', "no keys"), ('{"keys": [1]}', "not a JSON object"),
    ('{"kty":"oct","k":"AAAA","kid":"x"}', "symmetric"),
    (ED.export_private(), "private"),
    (json.dumps(public(ED, kid=None)), "kid"),
    (json.dumps(public(ED, kid="")), "kid"),
    (json.dumps(public(ED, alg="RS256")), "alg"),
    (json.dumps(public(ED, use="enc")), "use"),
    (json.dumps(public(ED, key_ops=["sign"])), "key_ops"),
    (json.dumps(public(ED, key_ops=[])), "key_ops"),
    (json.dumps(public(ED, key_ops=5)), "key_ops"),
    (json.dumps({**public(ED), "key_ops": None}), "key_ops"),
    (json.dumps(public(ED, key_ops="verify")), "key_ops"),
    (json.dumps(public(ED, use=[])), "use"),
    (json.dumps(public(ED, kid=5)), "kid"),
    (json.dumps(public(ED, kid="a\nb")), "kid"),
    (json.dumps(public(ED, kid="\ud800")), "kid"),
    (json.dumps(public(ED, kid="a\u202eb")), "printable kid"),
    (json.dumps(public(ED, kid="a\u200bb")), "printable kid"),
    (json.dumps(public(ED, kid="\x1b[2J")), "printable kid"),
    (json.dumps(public(ED, kid="k" * 257)), "longer than 256"),
    (json.dumps(public(ED, kid="k" * 100_000)), "longer than 256"),
    (json.dumps(public(ED, kty="oct", d=None)), "symmetric"),
    (json.dumps(public(ED, kty=["OKP"])), "neither"),
    (json.dumps(public(ED, kty=None)), "neither"),
    (json.dumps(public(ED, kty="RSA")), "cannot be read"),
    (json.dumps(public(ED, crv="X25519")), "neither"),
    (json.dumps(public(EC, crv="P-384")), "neither"),
    (json.dumps(public(EC, crv="secp256k1")), "neither"),
    (json.dumps(public(ED, x="AA")), "not 32 bytes"),
    (json.dumps(public(ED, x=5)), "cannot be read"),
    (json.dumps(public(ED, x=None)), "cannot be read"),
    (json.dumps(public(ED, x=public(ED)["x"] + "=")), "cannot be read"),
    (json.dumps(public(EC, y=None)), "cannot be read"),
    (json.dumps(public(EC, x="AA" + public(EC)["x"])), "cannot be read"),
    (json.dumps(public(EC, x="AAAA" + public(EC)["x"])), "not 32 bytes"),
    (json.dumps(public(EC, x="A" * 43, y="A" * 43)), "are not those of a valid key"),
    (json.dumps(public(RSA, e=b64(2**64 + 1))), "exponent is too large"),
    (json.dumps(public(RSA, n=b64(2**16384 + 1))), "16384"),
    (json.dumps(public(RSA, n=b64(2**2047 + 2))), "even"),
    (json.dumps(public(RSA, k="AAAA")), "private"),
    (json.dumps(public(RSA, oth=[])), "private"),
    ('{"kty":"OKP","kty":"OKP"}', "duplicate"), ('{"x":NaN}', "NaN"), ("\ufeff{}", "not a JWK"),
    ("[" * 5000, "nested"), ("5", "not a JWK"), (" " * 2**20 + "{}", "larger"),
    (json.dumps(public(EC, x=public(EC)["y"])), "are not those of a valid key"),
    (json.dumps(public(WEAK)), "2048"),
    (json.dumps(public(RSA, e=b64(1))), "exponent"),
    (json.dumps(public(RSA, e=b64(65536))), "exponent"),
    (json.dumps(public(RSA, n="!")), "cannot be read"),
    (json.dumps(public(RSA, n=b64(roca()))), "ROCA"),
    (json.dumps(public(RSA, n=b64(3 * (2**2046 + 1)))), "small factor"),
    (json.dumps(public(RSA, n=b64(9973 * (2**2047 + 9)))), "small factor"),
    (json.dumps(public(RSA, n=b64(close_primes()))), "too close"),
    (json.dumps(public(RSA, n=b64((2**1024 - 105) ** 2))), "too close"),
    (json.dumps(public(RSA, e="AA")), "exponent"),
    (json.dumps(public(RSA, n="")), "cannot be read"),
    (json.dumps({"keys": [public(ED), public(ED)]}), "same kid"),
    (RSA.export_private(), "private"),
    (EC.export_private(), "private"),
    (RSA.export_to_pem(private_key=True, password=None).decode(), "not a JWK"),
    (RSA.export_to_pem().decode(), "not a JWK"),
    (json.dumps({"keys": [public(ED), public(EC, kid="ed")]}), "same kid"),
])
def test_the_message_names_the_file_and_the_reason(tmp_path, text, said) -> None:
    """It is one line, and repeats nothing of the key."""
    path = tmp_path / "the.key"
    path.write_text(text)
    with pytest.raises(KeyFileError) as caught:
        load_key_ring([path])
    message = str(caught.value)
    assert "the.key" in message
    assert said in message
    assert "\n" not in message
    assert str(ED.export_private(as_dict=True)["d"]) not in message


def test_a_kid_of_256_characters_is_accepted() -> None:
    """A token has room for it."""
    assert list(key_ring(json.dumps(public(ED, kid="k" * 256))))


@pytest.mark.parametrize("key", [ED, EC, RSA])
def test_the_message_about_a_private_key_in_der_repeats_nothing_of_it(tmp_path, key) -> None:
    raw = key.get_op_key("sign").private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption())
    path = tmp_path / "key.der"
    path.write_bytes(raw)
    with pytest.raises(KeyFileError) as caught:
        load_key_ring([path])
    assert str(caught.value) == f"{path}: not a JWK or JWK Set (not UTF-8)"


def test_the_keys_of_several_files(tmp_path) -> None:
    """Two keys with one kid are refused, and so is a missing file."""
    for name, key in (("a", ED), ("b", EC), ("c", ED)):
        (tmp_path / name).write_text(key.export_public())
    ring = load_key_ring([tmp_path / "a", tmp_path / "b"])
    assert ring.keys() == {"ed", "ec"}
    with pytest.raises(KeyFileError, match="same kid"):
        load_key_ring([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(KeyFileError, match="No such file"):
        load_key_ring([tmp_path / "none"])


# The y of an Ed25519 point of order 8, from the list in Cremers and Jackson, "Prime, Order Please!"
# (2019), little-endian.
ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
FIELD = 2**255 - 19


@pytest.mark.parametrize("y", [
    0, 1, FIELD - 1, int.from_bytes(bytes.fromhex(ORDER_8), "little"),
    FIELD - int.from_bytes(bytes.fromhex(ORDER_8), "little"),
])
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_ed25519_keys_of_small_order_are_refused(y, sign) -> None:
    """Anybody can make signatures for them; the sign of x does not matter."""
    with pytest.raises(KeyFileError, match="small order"):
        key_ring(json.dumps(public(ED, x=okp(y + sign))))


@pytest.mark.parametrize("y", [2, 7, FIELD, FIELD + 1, 2**255 - 1])
def test_ed25519_keys_off_the_curve_are_refused(y) -> None:
    """And so are points that are not written in their only valid form."""
    with pytest.raises(KeyFileError, match="no point"):
        key_ring(json.dumps(public(ED, x=okp(y))))


def test_strong_keys_are_not_taken_for_weak_ones() -> None:
    """A hundred Ed25519 keys, which are made quickly, and the base point."""
    keys = [jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=str(n)) for n in range(100)]
    keys.append(jwk.JWK(kty="OKP", crv="Ed25519", kid="base",
                        x=okp(4 * pow(5, -1, FIELD) % FIELD)))
    text = json.dumps({"keys": [key.export_public(as_dict=True) for key in keys]})
    assert len(key_ring(text)) == 101


def test_other_members_of_a_key_are_ignored() -> None:
    """With `generate`, jwcrypto would make a new key."""
    text = json.dumps(public(ED, generate="RSA", size=16384, x5c=5, note="", key_ops=["verify"]))
    (key,) = key_ring(text).values()
    assert key.jwk.export_public(as_dict=True) == public(ED)


def test_a_key_ring_is_immutable() -> None:
    """Everything that runs shares it."""
    ring = key_ring(json.dumps(public(ED)))
    with pytest.raises(TypeError):
        ring["x"] = ring["ed"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        ring.other = 1  # type: ignore[attr-defined]
    assert "x" not in ring
    assert list(ring) == ["ed"]
    assert not KeyRing()


def test_the_message_about_a_folder_or_an_odd_file_name_is_one_line(tmp_path) -> None:
    with pytest.raises(KeyFileError, match=f"^{tmp_path}: Is a directory$"):
        load_key_ring([tmp_path])
    with pytest.raises(KeyFileError, match=r"a\?b\?\[0m: No such file or directory$"):
        load_key_ring([tmp_path / "a\nb\x1b[0m"])


MEMBERS = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "kid", "alg", "use", "key_ops",
                           "x5c", "keys", "oth", "generate", "self"])
ANYTHING = st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.text())


@given(st.sampled_from([ED, EC, RSA]), st.dictionaries(MEMBERS, ANYTHING, max_size=4))
def test_any_member_gives_a_key_or_one_line(key, changes) -> None:
    """Whatever a file contains, the service does not stop with a traceback."""
    try:
        ring = key_ring(json.dumps({**public(key), **changes}))
    except KeyFileError as error:
        assert str(error).isprintable()
    else:
        assert len(ring) == 1


@given(st.binary(max_size=60))
def test_any_bytes_give_one_line(text) -> None:
    """No such text contains a key."""
    with pytest.raises(KeyFileError) as caught:
        key_ring(text)
    assert str(caught.value).isprintable()
