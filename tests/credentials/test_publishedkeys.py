"""Published sets: the usable keys are taken, and each of the others gets a line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jwcrypto import jwk

from envelope.credentials.keys import KeyFileError, KeyRing
from envelope.credentials.publishedkeys import MOST_KEYS, merged, read_set

ORIGIN = "https://keys.example/jwks"


def key(kid: str, private: bool = False, **more: Any) -> dict[str, Any]:
    made = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=kid, alg="EdDSA", use="sig")
    return {**made.export(private_key=private, as_dict=True), **more}


def text(*members: Any) -> bytes:
    return json.dumps({"keys": members}).encode()


def test_usable_keys_are_taken() -> None:
    found = read_set(text(key("one"), key("two")), ORIGIN)
    assert [each.kid for each in found.keys] == ["one", "two"]
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (key("bad", private=True), "key 'bad': a private key does not belong here"),
        ({"kty": "oct", "k": "AAAA", "kid": "bad"}, "key 'bad': a symmetric key"),
        (key("bad", use="enc"), "key 'bad': a key's use is not sig"),
        (key("bad", alg="HS256"), "key 'bad': a key's alg is not EdDSA"),
        (key("good"), "key 'good': an earlier key has the same kid"),
        ({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "pq"}, "key 'pq': "),
        ({"kty": ["RSA"], "kid": "bad"}, "key 'bad': "),
        ({}, "a key: "),
        (key("\n\x1b[31m"), "a key: "),
        (key("x" * 300), "a key: "),
    ],
)
def test_other_keys_are_passed_over_with_a_reason(bad: dict[str, Any], words: str) -> None:
    """Weak keys, keys for another purpose, and unknown kinds."""
    found = read_set(text(key("good"), bad), ORIGIN)
    assert [each.kid for each in found.keys] == ["good"]
    (line,) = found.skipped
    assert line.startswith(words)
    assert line.isprintable()


def test_a_weak_rsa_key_is_passed_over() -> None:
    weak = jwk.JWK.generate(kty="RSA", size=1024, kid="weak").export_public(as_dict=True)
    found = read_set(text(weak, key("good")), ORIGIN)
    assert found.skipped[0].startswith("key 'weak': ")
    assert "fewer than 2048 bits" in found.skipped[0]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<html>", b"[]", b"null", b'{"keys": []}', b'{"keys": {}}', b'{"keys": [1]}',
        b'{"keys": [], "keys": []}', b"\xff\xfe{", text({}), text(*[{}] * (MOST_KEYS + 1)),
        b'{"keys":' + b"[" * 100_000,
    ],
)
def test_a_set_without_a_usable_key_is_refused(content: bytes) -> None:
    with pytest.raises(KeyFileError) as caught:
        read_set(content, ORIGIN)
    assert str(caught.value).startswith(f"{ORIGIN}: ")
    assert caught.value.reason
    assert caught.value.reason.isprintable()


def test_the_operators_own_key_is_used() -> None:
    own = KeyRing(read_set(text(key("mine"), key("both")), ORIGIN).keys)
    fetched = read_set(text(key("both"), key("theirs")), ORIGIN).keys
    ring, shared = merged(own, fetched)
    assert list(ring) == ["mine", "both", "theirs"]
    assert ring["both"] is own["both"]
    assert shared == ("both",)
    assert merged(own, ())[0].keys() == own.keys()
