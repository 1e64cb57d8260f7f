"""Forged tokens: the attacks of RFC 8725 and of public collections.

Each name stands for a token and the reason for its refusal.
"""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from jwcrypto import jwe, jwk, jws

from tests.support.tokenmaking import (
    GOOD,
    KEYS,
    PAYLOAD,
    STRANGER,
    b64,
    raw_signature,
    signed,
    signed_as_is,
    unb64,
)

HEAD, BODY, SIGNATURE = signed(GOOD).split(".")
# The orders of P-256's base point (SP 800-186 section 3.2.1.3) and of Ed25519's (RFC 8032, 5.1).
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def hmac_confusion(kid: str, secret: bytes, alg: str = "HS256") -> str:
    """A token signed with public data as the HMAC secret."""
    core = f"{b64(json.dumps({'alg': alg, 'kid': kid}))}.{b64(PAYLOAD)}"
    return f"{core}.{b64(hmac.digest(secret, core.encode(), f'sha{alg[2:]}'))}"


def by_a_stranger(key: jwk.JWK = STRANGER, alg: str = "EdDSA", **header: object) -> str:
    """A token signed by another key under the `kid` of ours."""
    return signed_as_is(json.dumps({"alg": alg, "kid": alg, **header}), PAYLOAD, alg, key)


def _unbound(key: jwk.JWK) -> jwk.JWK:
    """The key without `alg`, `use` and other limits of its use."""
    said = key.export(as_dict=True)
    return jwk.JWK(**{name: said[name] for name in said if name not in ("alg", "use")})


def rsa_made_with(alg: str) -> str:
    """A valid signature of our own key with another RSA algorithm."""
    token = jws.JWS(PAYLOAD)
    token.allowed_algs = [alg]
    token.add_signature(_unbound(KEYS["RS256"]), alg, json.dumps({"alg": alg, "kid": "RS256"}))
    return str(token.serialize(compact=True))


def with_alg(alg: object, **header: object) -> str:
    """A valid signature under another `alg`."""
    return signed_as_is(json.dumps({"alg": alg, "kid": "EdDSA", **header}), PAYLOAD)


def with_signature(alg: str, signature: bytes) -> str:
    """A good token with another signature."""
    return f"{signed(GOOD, alg).rpartition('.')[0]}.{b64(signature)}"


def ecdsa(r: int, s: int) -> str:
    """A token with these two numbers as its ECDSA signature."""
    return with_signature("ES256", r.to_bytes(32) + s.to_bytes(32))


def der_instead_of_raw() -> str:
    """A token with its ECDSA signature in DER, as in X.509."""
    head, _, raw = signed(GOOD, "ES256").rpartition(".")
    number = unb64(raw)
    r, s = int.from_bytes(number[:32]), int.from_bytes(number[32:])
    return f"{head}.{b64(encode_dss_signature(r, s))}"


def another_s() -> str:
    """A token whose Ed25519 signature has the group order added to its second half."""
    head, _, raw = signed(GOOD).rpartition(".")
    half, s = unb64(raw)[:32], int.from_bytes(unb64(raw)[32:], "little")
    return f"{head}.{b64(half + (s + ED25519_ORDER).to_bytes(32, 'little'))}"


def encrypted(alg: str, key: jwk.JWK, **header: object) -> str:
    """A good token inside a JWE, which anyone can make with a public key."""
    inner = jwe.JWE(signed(GOOD).encode(), json.dumps({"alg": alg, "enc": "A128GCM", **header}))
    inner.add_recipient(_unbound(key))
    return str(inner.serialize(compact=True))


def self_signed(key: jwk.JWK) -> str:
    """A self-signed certificate for `key`, in the form of `x5c`."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "locate")])
    now, private = datetime.now(UTC), key.get_op_key("sign")
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(private.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=9)).sign(private, None)
    )
    return base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


def pem(alg: str) -> bytes:
    """A public key in PEM."""
    return bytes(KEYS[alg].export_to_pem())


def openssh() -> bytes:
    """A public key as a line of `authorized_keys`."""
    key = KEYS["EdDSA"].get_op_key("verify")
    return bytes(key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH))


_OTHERS_KEY = STRANGER.export_public(as_dict=True)
_EC_STRANGER = jwk.JWK.generate(kty="EC", crv="P-256")
_RSA_STRANGER = jwk.JWK.generate(kty="RSA", size=2048)

ALGORITHMS = {
    "alg none": (with_alg("none"), "algorithm"),
    "alg None": (with_alg("None"), "algorithm"),
    "alg nOnE": (with_alg("nOnE"), "algorithm"),
    "alg none with a nul": (with_alg("none\0"), "algorithm"),
    "alg none and nothing behind": (b64('{"alg":"none"}') + f".{BODY}.", "malformed"),
    "alg none and something behind": (b64('{"alg":"none"}') + f".{BODY}.AA", "algorithm"),
    "alg empty": (with_alg(""), "algorithm"),
    "alg missing": (signed_as_is('{"kid":"EdDSA"}', PAYLOAD), "algorithm"),
    "alg a list": (with_alg(["EdDSA"]), "algorithm"),
    "alg null": (with_alg(None), "algorithm"),
    "alg true": (with_alg(True), "algorithm"),
    "alg a number": (with_alg(0), "algorithm"),
    "alg an object": (with_alg({}), "algorithm"),
    "alg eddsa": (with_alg("eddsa"), "algorithm"),
    "alg Ed25519, as RFC 9864 has it": (with_alg("Ed25519"), "algorithm"),
    "alg Ed448": (with_alg("Ed448"), "algorithm"),
    "alg with a blank": (with_alg("EdDSA "), "algorithm"),
    "alg's name in capitals": (signed_as_is('{"ALG":"EdDSA","kid":"EdDSA"}', PAYLOAD), "algorithm"),
    "alg of an ecdsa key": (with_alg("ES256"), "algorithm"),
    "alg of an rsa key": (with_alg("RS256"), "algorithm"),
    "es256k": (signed(GOOD, "ES256", alg="ES256K"), "algorithm"),
    "es384": (signed(GOOD, "ES256", alg="ES384"), "algorithm"),
    "rs1": (signed(GOOD, "RS256", alg="RS1"), "algorithm"),
    "pss by the rsa key": (rsa_made_with("PS256"), "algorithm"),
    "sha-512 by the rsa key": (rsa_made_with("RS512"), "algorithm"),
    "pss, called rs256": (
        with_signature("RS256", unb64(rsa_made_with("PS256").rpartition(".")[2])), "signature"),
    "hmac with the public key in pem": (hmac_confusion("RS256", pem("RS256")), "algorithm"),
    "hmac, and no line end": (hmac_confusion("RS256", pem("RS256").strip()), "algorithm"),
    "hmac with the ecdsa key in pem": (hmac_confusion("ES256", pem("ES256")), "algorithm"),
    "hmac of 512 bits": (hmac_confusion("RS256", pem("RS256"), "HS512"), "algorithm"),
    "hmac with the public key of ssh": (hmac_confusion("EdDSA", openssh()), "algorithm"),
    "hmac with the public key as jwk": (
        hmac_confusion("EdDSA", KEYS["EdDSA"].export_public().encode()), "algorithm"),
    "hmac with the public bytes": (
        hmac_confusion("EdDSA", unb64(KEYS["EdDSA"].get("x"))), "algorithm"),
    "hmac with the thumbprint": (
        hmac_confusion("EdDSA", KEYS["EdDSA"].thumbprint(hashes.SHA256()).encode()), "algorithm"),
    "hmac with nothing": (hmac_confusion("", b""), "algorithm"),
    "password-based, at a great cost": (
        with_alg("PBES2-HS256+A128KW", p2c=2**31 - 1, p2s="AAAA"), "algorithm"),
    "direct encryption": (with_alg("dir"), "algorithm"),
}

KEY_NAMES = {
    "a stranger's": (by_a_stranger(), "signature"),
    "a stranger's ecdsa": (by_a_stranger(_EC_STRANGER, "ES256"), "signature"),
    "a stranger's rsa": (by_a_stranger(_RSA_STRANGER, "RS256"), "signature"),
    "a stranger's, bringing the key": (by_a_stranger(jwk=_OTHERS_KEY), "signature"),
    "a stranger's, bringing the key in our name": (
        by_a_stranger(jwk={**_OTHERS_KEY, "kid": "EdDSA", "alg": "EdDSA"}), "signature"),
    "a stranger's, bringing a certificate": (
        by_a_stranger(x5c=[self_signed(STRANGER)]), "signature"),
    "a stranger's, pointing to the key": (
        by_a_stranger(jku="https://evil.example/jwks", x5u="file:///dev/zero"), "signature"),
    "a stranger's, with odd certificates": (
        by_a_stranger(x5c=5, x5t=[], jwk="x", jku={}), "malformed"),
    "a stranger's, bringing the private key": (
        by_a_stranger(jwk=STRANGER.export_private(as_dict=True)), "malformed"),
    "a private key in a good token": (
        signed(GOOD, jwk=STRANGER.export_private(as_dict=True)), "malformed"),
    "embedded jwk": (by_a_stranger(jwk=_OTHERS_KEY, kid="x"), "unknown-key"),
    "embedded jwk, and no kid": (
        signed_as_is(json.dumps({"alg": "EdDSA", "jwk": _OTHERS_KEY}), PAYLOAD, "EdDSA", STRANGER),
        "unknown-key"),
    "jku": (signed(GOOD, jku="https://evil.example/jwks", kid="x"), "unknown-key"),
    "x5c": (signed(GOOD, x5c=["AA=="], kid="x"), "unknown-key"),
    "kid a path": (signed(GOOD, kid="../../dev/null"), "unknown-key"),
    "kid a url": (signed(GOOD, kid="https://evil.example/EdDSA"), "unknown-key"),
    "kid a command": (signed(GOOD, kid="EdDSA;id|sh"), "unknown-key"),
    "kid sql": (signed(GOOD, kid="x' UNION SELECT 'k"), "unknown-key"),
    "kid a template": (signed(GOOD, kid="{0.__class__} %s ${x}"), "unknown-key"),
    "kid a number": (signed(GOOD, kid=1), "unknown-key"),
    "kid a float that is none": (signed_as_is('{"alg":"EdDSA","kid":1e300}', PAYLOAD),
                                 "unknown-key"),
    "kid true": (signed(GOOD, kid=True), "unknown-key"),
    "kid null": (signed(GOOD, kid=None), "unknown-key"),
    "kid empty": (signed(GOOD, kid=""), "unknown-key"),
    "kid in capitals": (signed(GOOD, kid="EDDSA"), "unknown-key"),
    "kid in wide letters": (signed(GOOD, kid="\uff25dDSA"), "unknown-key"),
    "kid with a blank": (signed(GOOD, kid="EdDSA "), "unknown-key"),
    "kid with a nul": (signed(GOOD, kid="EdDSA\0"), "unknown-key"),
    "kid with what is not seen": (signed(GOOD, kid="EdDSA\u200b"), "unknown-key"),
    "kid a list": (signed(GOOD, kid=["EdDSA"]), "unknown-key"),
    "kid an object": (signed(GOOD, kid={"EdDSA": 1}), "unknown-key"),
    "kid half a character": (signed(GOOD, kid="\ud800"), "unknown-key"),
    "kid of 5 kB": (signed(GOOD, kid="k" * 5000), "unknown-key"),
    "kid an attribute of the ring": (signed(GOOD, kid="__class__"), "unknown-key"),
    "kid missing": (signed_as_is('{"alg":"EdDSA"}', PAYLOAD), "unknown-key"),
}

EXTENSIONS = {
    "crit": (signed(GOOD, crit=["exp"]), "malformed"),
    "crit empty": (signed(GOOD, crit=[]), "malformed"),
    "crit null": (signed(GOOD, crit=None), "malformed"),
    "crit that is not there": (signed(GOOD, crit=["http://example.com/UNDEFINED"]), "malformed"),
    "b64": (signed(GOOD, b64=True), "malformed"),
    "b64 false, and critical": (signed(GOOD, b64=False, crit=["b64"]), "malformed"),
    "payload not encoded": (".".join((
        core := b64('{"alg":"EdDSA","kid":"EdDSA","b64":false,"crit":["b64"]}'), "x",
        b64(raw_signature(f"{core}.x".encode(), "EdDSA")))), "malformed"),
    "zip": (signed(GOOD, zip="DEF"), "malformed"),
    "enc": (signed(GOOD, enc="A128GCM"), "malformed"),
    "nested, says cty": (signed(GOOD, cty="JWT"), "malformed"),
    "encrypted": (encrypted("dir", jwk.JWK.generate(kty="oct", size=128)), "malformed"),
    "encrypted, to the public key": (
        encrypted("RSA-OAEP", KEYS["RS256"]), "malformed"),
    "encrypted and compressed": (
        encrypted("dir", jwk.JWK.generate(kty="oct", size=128), zip="DEF"), "malformed"),
}

SIGNATURES = {
    "psychic signature": (ecdsa(0, 0), "signature"),
    "r zero": (ecdsa(0, 1), "signature"),
    "s zero": (ecdsa(1, 0), "signature"),
    "ones": (ecdsa(1, 1), "signature"),
    "r and s the order": (ecdsa(P256_ORDER, P256_ORDER), "signature"),
    "s the order": (ecdsa(1, P256_ORDER), "signature"),
    "r one less than the order": (ecdsa(P256_ORDER - 1, 1), "signature"),
    "all bits": (ecdsa(2**256 - 1, 2**256 - 1), "signature"),
    "ecdsa in der": (der_instead_of_raw(), "signature"),
    "short ecdsa signature": (with_signature("ES256", bytes(63)), "signature"),
    "long ecdsa signature": (with_signature("ES256", bytes(66)), "signature"),
    "ecdsa with a zero more in each half": (
        with_signature("ES256", bytes(1) + bytes(32) + bytes(1) + bytes(32)), "signature"),
    "psychic, and eddsa": (with_signature("EdDSA", bytes(64)), "signature"),
    "the neutral point, and eddsa": (with_signature("EdDSA", b"\1" + bytes(63)), "signature"),
    "another s": (another_s(), "signature"),
    "a long eddsa signature": (with_signature("EdDSA", bytes(65)), "signature"),
    "a good one and more": (
        with_signature("EdDSA", unb64(SIGNATURE) + b"\0"), "signature"),
    "long rsa signature": (with_signature("RS256", bytes(257)), "signature"),
    "short rsa signature": (with_signature("RS256", bytes(255)), "signature"),
    "rsa of zeros": (with_signature("RS256", bytes(256)), "signature"),
    "rsa of one": (with_signature("RS256", bytes(255) + b"\1"), "signature"),
    "rsa of all bits": (with_signature("RS256", b"\xff" * 256), "signature"),
    "another's payload": (".".join((HEAD, b64(b"{}"), SIGNATURE)), "signature"),
    "another's header": (".".join((signed(GOOD, typ="JWT").split(".")[0], BODY, SIGNATURE)),
                         "signature"),
    "another's signature": (".".join((HEAD, BODY, signed({}).split(".")[2])), "signature"),
    "signed without its header": (
        f"{HEAD}.{BODY}.{b64(raw_signature(BODY.encode(), 'EdDSA'))}", "signature"),
    "signed before it was encoded": (
        f"{HEAD}.{BODY}.{b64(raw_signature(unb64(HEAD) + b'.' + PAYLOAD, 'EdDSA'))}", "signature"),
}

FORGERIES = {**ALGORITHMS, **KEY_NAMES, **EXTENSIONS, **SIGNATURES}
