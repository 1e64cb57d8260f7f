"""Files of `--verify-key`: a bare JWK is read strictly, a JWK Set as a published one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jwcrypto import jwk
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from envelope.credentials.keyfiles import KeyFiles
from envelope.credentials.keys import KeyFileError
from envelope.credentials.publishedkeys import MOST_LINES
from tests.support.keyrings import load_key_ring

ED = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="good")
RSA = jwk.JWK.generate(kty="RSA", size=2048, kid="rsa")
WEAK = jwk.JWK.generate(kty="RSA", size=1024, kid="weak")


def public(key: jwk.JWK, **more: Any) -> dict[str, Any]:
    return {**key.export_public(as_dict=True), **more}


GOOD = public(ED)
# What issuers publish beside the keys that sign, and what another format would hold.
UNUSABLE = {
    "encryption": (public(RSA, alg="RSA-OAEP", use="enc"), "key 'rsa': a key's alg is not RS256"),
    "no alg, use enc": (public(RSA, use="enc"), "key 'rsa': a key's use is not sig"),
    "another algorithm": (public(RSA, alg="PS256"), "key 'rsa': a key's alg is not RS256"),
    "unknown kty": (
        {"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AAAA"},
        "key 'pq': a key is neither Ed25519, P-256 nor RSA"),
    "no kty": ({"kid": "none"}, "key 'none': a key is neither Ed25519, P-256 nor RSA"),
    "X25519": (public(ED, crv="X25519", kid="x"), "key 'x': a key is neither"),
    "P-384": ({"kty": "EC", "crv": "P-384", "kid": "p"}, "key 'p': a key is neither"),
    "only for wrapping": (
        public(RSA, key_ops=["wrapKey"]), "key 'rsa': a key's key_ops do not include verify"),
    "no kid": ({n: v for n, v in GOOD.items() if n != "kid"}, "a key: a key has no printable kid"),
    "a kid that cannot be printed": (public(ED, kid="a\n\x1b[2J"), "a key: a key has no printable"),
    "numbers cut short": (public(ED, kid="cut", x="AAAA"), "key 'cut': the numbers of a key"),
    "no point": (public(ED, kid="off", x="Ag" + "A" * 41), "key 'off': an Ed25519 key is no point"),
    "too large for OpenSSL": (
        public(RSA, e="AQAAAAAAAAAAAQ"), "key 'rsa': an RSA key's exponent is too large"),
}
# What must not be there at all.
UNSAFE = {
    "private": (ED.export_private(as_dict=True), "a private key does not belong here"),
    "private, for encryption": (
        {**RSA.export_private(as_dict=True), "use": "enc"}, "a private key does not belong here"),
    "private, of an unknown kind": ({"kty": "AKP", "kid": "pq", "priv": "AAAA"}, "a private key"),
    "symmetric": ({"kty": "oct", "k": "AAAA", "kid": "s"}, "key 's': a symmetric key"),
    "weak": (public(WEAK), "key 'weak': an RSA key has fewer than 2048 bits"),
    "of small order": (public(ED, kid="0", x="A" * 43), "small order"),
}


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []

    def hear(event: LogEvent) -> None:
        lines.append(f"{event['log_namespace']} {event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(hear)
    yield lines
    globalLogPublisher.removeObserver(hear)


def write(folder: Path, *members: dict[str, Any]) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps({"keys": members}))
    return path


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_key_in_a_set_is_passed_over(
    tmp_path: Path, said: list[str], name: str
) -> None:
    """Whether it comes before or after the good one, with one line that names kid and reason."""
    member, line = UNUSABLE[name]
    for members in ((member, GOOD), (GOOD, member)):
        said.clear()
        path = write(tmp_path, *members)
        assert list(load_key_ring([path])) == ["good"]
        (only,) = said
        assert only.startswith(f"envelope warn: passed over in {path}: {line}")
        assert only.isprintable()


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_bare_key_and_a_set_of_such_keys_alone_are_refused(tmp_path: Path, name: str) -> None:
    member, line = UNUSABLE[name]
    path = write(tmp_path, member, member)
    with pytest.raises(KeyFileError) as caught:
        load_key_ring([path])
    assert str(caught.value).startswith(f"{path}: no key in the set is usable ({line}")
    path.write_text(json.dumps(member))
    with pytest.raises(KeyFileError) as caught:
        load_key_ring([path])
    assert str(caught.value).startswith(f"{path}: {line.partition(': ')[2]}")


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_key_refuses_the_whole_set(tmp_path: Path, name: str) -> None:
    """A secret must not lie there, and a weak key is worth a look by the operator."""
    member, line = UNSAFE[name]
    with pytest.raises(KeyFileError, match=line):
        load_key_ring([write(tmp_path, GOOD, member)])


def test_passed_over_keys_are_logged_again_only_when_they_are_others(
    tmp_path: Path, said: list[str]
) -> None:
    """A set of many has ten lines, and one for the rest."""
    others = [{"kty": "AKP", "kid": f"pq{number}"} for number in range(MOST_LINES + 5)]
    path = write(tmp_path, GOOD, *others)
    files = KeyFiles([path])
    files.reload()
    assert len(said) == MOST_LINES + 1
    assert said[-1] == "envelope warn: passed over 5 more"
    write(tmp_path, GOOD, others[0])
    files.reload()
    files.reload()
    assert len(said) == MOST_LINES + 2


def test_a_file_that_cannot_be_read_keeps_the_keys(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    files = KeyFiles([path])
    path.write_text(path.read_text()[:-5])
    with pytest.raises(KeyFileError, match="not a JWK"):
        files.reload()
    assert list(files.ring) == ["good"]


def test_the_same_kid_in_two_sets_is_refused(tmp_path: Path) -> None:
    """Of unusable keys the kid does not matter: an issuer may publish both uses under one."""
    (tmp_path / "own").write_text(json.dumps(GOOD))
    path = write(tmp_path, public(RSA, kid="good", use="enc"), public(RSA))
    assert list(load_key_ring([tmp_path / "own", path])) == ["good", "rsa"]
    with pytest.raises(KeyFileError, match="same kid"):
        load_key_ring([tmp_path / "own", write(tmp_path, GOOD)])
