"""Keys and certificate together, on a reactor that does not really connect."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
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
from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, sign, write_certificate

URL = "https://192.0.2.1/jwks"


def make(kid: str) -> jwk.JWK:
    return jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=kid, alg="EdDSA", use="sig")


class Subject:
    """Credentials without a certificate, whose server of keys never answers."""

    def __init__(
        self, folder: Path, wall: Callable[[], float] = time.time, **more: object
    ) -> None:
        self.folder = folder
        self.reactor = MemoryReactorClock()
        self.own = make("own")
        (folder / "own.pub").write_text(self.own.export_public())
        config = Config(machine=MACHINE, subject=(Wanted(SUBJECT),), **more)  # type: ignore[arg-type]
        self.credentials = Credentials(
            config, self.reactor, CollectorRegistry(), wall, lambda: 1.0
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
    subject.reactor.advance(unknown_kid_delay(61, 1.0))
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


def test_operators_are_shown_the_keys_and_the_certificate_in_use(tmp_path: Path) -> None:
    """With the moment since when each is in use; a key that stays keeps its own."""
    write_certificate(tmp_path)
    own = tmp_path / "own.pub"
    moments = iter(range(1, 100))
    subject = Subject(
        tmp_path, lambda: float(next(moments)), verify_key=(own,), cert=tmp_path / "cert.pem",
        key=tmp_path / "key.pem",
    )
    (before,) = subject.credentials.keys_in_use()
    assert (before.kid, before.alg, before.source) == ("own", "EdDSA", "verify-key")
    certificate = subject.credentials.certificate_in_use()
    assert certificate is not None
    assert certificate.names == ("203.0.113.1",)
    assert certificate.not_before < certificate.not_after
    keys = {"keys": [json.loads(subject.own.export_public()),
                     json.loads(make("new").export_public())]}
    own.write_text(json.dumps(keys))
    subject.credentials.start()
    subject.credentials.reload()
    kept, new = subject.credentials.keys_in_use()
    assert kept == before
    assert (new.kid, new.since > before.since) == ("new", True)
    subject.credentials.stop()
    assert Subject(tmp_path, verify_key=(own,)).credentials.certificate_in_use() is None
