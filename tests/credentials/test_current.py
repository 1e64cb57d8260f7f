"""Keys and certificate together, on a reactor that does not really connect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jwcrypto import jwk
from prometheus_client import CollectorRegistry
from twisted.internet.testing import MemoryReactorClock

from envelope.config import Config
from envelope.config.subjects import Subject as Wanted
from envelope.credentials.current import CredentialError, Credentials
from envelope.credentials.freshness import unknown_kid_delay
from envelope.credentials.tokens import Claims, TokenRefusal
from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, sign

URL = "https://192.0.2.1/jwks"


def make(kid: str) -> jwk.JWK:
    return jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=kid, alg="EdDSA", use="sig")


class Subject:
    """Credentials without a certificate, whose server of keys never answers."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.folder = folder
        self.reactor = MemoryReactorClock()
        self.own = make("own")
        (folder / "own.pub").write_text(self.own.export_public())
        config = Config(machine=MACHINE, subject=(Wanted(SUBJECT),), **more)  # type: ignore[arg-type]
        self.credentials = Credentials(
            config, self.reactor, CollectorRegistry(), chance=lambda: 1.0
        )

    def verify(self, key: jwk.JWK) -> object:
        verdict = self.credentials.verify(sign(key), 1e9)
        return verdict.reason if isinstance(verdict, TokenRefusal) else type(verdict)

    @property
    def connections(self) -> int:
        return len(self.reactor.tcpClients)


def test_only_a_token_with_an_unknown_kid_causes_a_fetch(tmp_path: Path) -> None:
    """A minute after the last fetch; valid tokens and other invalid ones cause none."""
    subject = Subject(tmp_path, verify_key=(tmp_path / "own.pub",), verify_jwks_url=URL)
    subject.credentials.start()
    while subject.reactor.seconds() < 400:  # until the pause between failures is a long one
        subject.reactor.advance(1)
    began = subject.connections
    subject.reactor.advance(61)
    assert subject.verify(subject.own) is Claims
    forged = make("own")
    assert subject.verify(forged) == "signature"
    subject.reactor.advance(0)
    before = subject.connections
    assert subject.verify(make("new")) == "unknown-key"
    assert subject.connections == before
    subject.reactor.advance(unknown_kid_delay(1.0))
    assert subject.connections == before + 1
    assert began > 3
    subject.credentials.stop()
    assert subject.reactor.getDelayedCalls() == []


def test_missing_keys_are_a_problem_only_if_no_client_can_be_admitted(tmp_path: Path) -> None:
    """With a key from a file, or with optional tokens, they are a warning."""
    lines = [f"the keys of {URL}: they have not been fetched yet"]
    for more, problems, warnings in (
        ({}, lines, []),
        ({"verify_key": (tmp_path / "own.pub",)}, [], lines),
        ({"token_required": False}, [], lines),
    ):
        credentials = Subject(tmp_path, verify_jwks_url=URL, **more).credentials
        assert (credentials.problems(), credentials.warnings()) == (problems, warnings)
    assert Subject(tmp_path, verify_key=(tmp_path / "own.pub",)).credentials.problems() == []


def test_keys_in_files_are_read_again_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "own.pub"
    subject = Subject(tmp_path, verify_key=(path,))
    path.write_text("rubbish")
    subject.credentials.reload()
    assert subject.verify(subject.own) is Claims
    other = make("other")
    path.write_text(other.export_public())
    subject.credentials.reload()
    assert (subject.verify(subject.own), subject.verify(other)) == ("unknown-key", Claims)


@pytest.mark.parametrize("name", ["verify_key", "jwks_ca"])
def test_what_cannot_be_used_at_the_start_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.pem"
    path.write_text(json.dumps({"kty": "oct"}))
    value = (path,) if name == "verify_key" else path
    with pytest.raises(CredentialError, match=r"bad\.pem"):
        Subject(tmp_path, verify_jwks_url=URL, **{name: value})
