"""What `envelope check` says of keys and certificates; a server of keys that sends nonsense."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest_twisted
from jwcrypto import jwk
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed

from envelope.config import Config
from envelope.credentials.httpreply import FetchFailed, FetchOutcome, Reply
from envelope.preflight.examination import examine
from envelope.preflight.files import (
    find_authorities,
    find_certificate,
    find_key_files,
    judge_published_keys,
)
from envelope.preflight.findings import Level
from tests.support.certificates import Authority


def key_file(path: Path, kid: str = "one") -> Path:
    key = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=kid, alg="EdDSA", use="sig")
    path.write_text(key.export_public())
    return path


def test_each_key_file_is_judged_by_itself(tmp_path: Path) -> None:
    good, bad = key_file(tmp_path / "good"), tmp_path / "bad"
    found = find_key_files(Config(verify_key=(good, bad)), {})
    assert [each.level for each in found] == [Level.OK, Level.FAIL]
    assert str(bad) in found[1].what


def test_two_files_with_one_kid_are_refused(tmp_path: Path) -> None:
    files = (key_file(tmp_path / "a"), key_file(tmp_path / "b"))
    found = find_key_files(Config(verify_key=files), {})
    assert [each.level for each in found] == [Level.OK, Level.OK, Level.FAIL]
    assert "leave one" in found[-1].do


def test_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("host.example")
    levels = {each.level for each in find_certificate(Config(cert=cert, key=key), {})}
    assert levels == {Level.OK}
    assert find_certificate(Config(), {})[0].level == Level.WARN
    found = find_certificate(Config(cert=cert, key=authority.path), {})
    assert [each.level for each in found] == [Level.FAIL]
    soon, soon_key = authority.issue("host.example", ends=3, stem="soon")
    found = find_certificate(Config(cert=soon, key=soon_key), {})
    assert any("expires in" in each.what and each.level == Level.WARN for each in found)


def test_a_chain_without_the_issuer_of_the_first_certificate(tmp_path: Path) -> None:
    """The certificate of another authority does not fill the gap; the order does not matter."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = authority.issue("host.example", alone=True)
    leaf, own, stranger = (path.read_text() for path in (cert, authority.path, other.path))
    for parts, said in (
        ((leaf,), "holds one certificate, and not the one of the authority that signed it"),
        ((leaf, stranger), "holds 2 certificates, and not the one of the authority that signed the"
                           " first"),
        ((leaf, own), ""), ((leaf, stranger, own), ""),
    ):
        cert.write_text("".join(parts))
        warned = [each for each in find_certificate(Config(cert=cert, key=key), {})
                  if each.level == Level.WARN]
        assert [said in each.what for each in warned] == ([True] if said else [])
        assert all("fullchain.pem" in each.do for each in warned)


def test_authorities(tmp_path: Path) -> None:
    assert find_authorities(Config(), {}) == []
    authority = Authority(tmp_path)
    assert find_authorities(Config(jwks_ca=authority.path), {})[0].level == Level.OK
    assert find_authorities(Config(jwks_ca=tmp_path / "no"), {})[0].level == Level.FAIL


class Fetcher:
    """Brings one answer, or fails."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer

    def fetch(self) -> Deferred[Reply]:
        if self._answer is None:
            raise FetchFailed(FetchOutcome.UNREACHABLE, "connection refused")
        return succeed(Reply(self._answer))


@pytest_twisted.ensureDeferred
async def test_keys_from_a_url(tmp_path: Path) -> None:
    """A start goes on without them, so they are never more than a warning."""
    key = key_file(tmp_path / "key").read_bytes()
    for answer, level, said in (
        (b'{"keys": [' + key + b"]}", Level.OK, "has the keys one"),
        (b"nonsense", Level.WARN, "cannot be fetched now"),
        (None, Level.WARN, "connection refused, and without them no client is let in"),
    ):
        config = Config(verify_jwks_url="https://keys.example/set?secret=1")
        found, = await judge_published_keys(Fetcher(answer), config)
        assert (found.level, said in found.what) == (level, True)
        assert "secret" not in found.what
    both = Config(verify_jwks_url="https://keys.example/set", verify_key=(tmp_path / "key",))
    found, = await judge_published_keys(Fetcher(None), both)
    assert "no client" not in found.what


@pytest_twisted.ensureDeferred
async def test_without_a_firewall_everything_is_found_in_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        text = f"127.0.0.1:{busy.getsockname()[1]}"
        options = [f"--listen={text}", "--token-required=false", "--control=none"]
        found = [each async for each in examine(reactor, parsed(options), options, {})]
    assert [each.what for each in found if each.level == Level.FAIL] == [
        f"cannot listen on {text}: address already in use"]


def parsed(options: list[str]) -> Any:
    from envelope.config.options import parse

    return parse(options, {})
