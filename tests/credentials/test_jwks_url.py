"""`--verify-jwks-url`: the real service, and a real server on the loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, sign
from tests.end_to_end.harness import BARE_PYTHON, PATH, Service
from tests.support.certificates import Authority
from tests.support.jwksserver import Publisher, make_key
from tests.support.loopbackservice import port_of, twistd

pytestmark = pytest.mark.process

WHO = (f"--machine={MACHINE}", f"--subject={SUBJECT}")


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


class Running:
    """The ports of a service, and what clients and operators are told there."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.port = port_of(service)
        self.admin = port_of(service, "metrics and health on")
        self.ready_line = service.until(r"ready$")

    def knock(self, token: str) -> int:
        """426: the token is good, and only the WebSocket is missing."""
        return get(self.port, f"{PATH}?access_token={token}")[0]

    def readyz(self) -> tuple[int, dict[str, object]]:
        status, body = get(self.admin, "/readyz")
        return status, json.loads(body)

    def metric(self, name: str) -> float:
        _, text = get(self.admin, "/metrics")
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name)))


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "keys")


def test_keys_are_fetched_before_the_first_client(
    publisher: Publisher, tmp_path: Path
) -> None:
    """A key of a file replaces a fetched one of the same kid; the log contains no secret."""
    one, two, mine = make_key("one"), make_key("two"), make_key("two")
    publisher.publish(one, two, {"kty": "oct", "kid": "weak", "k": "AAAA"})
    (tmp_path / "mine.pub").write_text(mine.export_public())
    with publisher.serve() as server, twistd(
        tmp_path, *WHO, "--verify-key=mine.pub", *publisher.options
    ) as service:
        running = Running(service)
        assert server.next() == "/jwks?secret=hush"
        assert running.readyz() == (200, {"ready": True})
        assert [running.knock(sign(key)) for key in (one, two, mine)] == [426, 401, 426]
        assert running.metric("envelope_jwks_keys") == 2
        assert running.metric('envelope_jwks_fetches_total{outcome="ok"}') == 1
        assert running.metric("envelope_jwks_last_success_timestamp_seconds") > 1e9
        assert service.stop() == 0
    log = "\n".join(service.seen)
    assert "are now: one, two" in log
    assert "key 'weak': a symmetric key" in log
    assert "of the same kid: two" in log
    assert "hush" not in log
    assert "eyJ" not in log


def test_without_any_key_the_service_starts_unready_and_tries_again(
    publisher: Publisher, tmp_path: Path
) -> None:
    """It becomes ready by itself once the server of the keys is up."""
    key = make_key("one")
    with publisher.serve():
        pass
    with twistd(tmp_path, *WHO, *publisher.options) as service:
        running = Running(service)
        status, told = running.readyz()
        assert status == 503
        assert told["reasons"] == [
            f"the keys of https://127.0.0.1:{publisher.port}/jwks: connection refused"
        ]
        assert running.knock(sign(key)) == 401
        publisher.publish(key)
        with publisher.serve() as server:
            assert server.next() == "/jwks?secret=hush"
            service.until("are now: one")
            assert running.knock(sign(key)) == 426
            assert running.readyz() == (200, {"ready": True})
        assert running.metric('envelope_jwks_fetches_total{outcome="unreachable"}') >= 1
        assert service.stop() == 0


def test_the_last_good_keys_are_kept_and_sighup_fetches_again(
    publisher: Publisher, tmp_path: Path
) -> None:
    """A failed fetch is a warning in `/readyz`, also when it fails because of new authorities."""
    old, new = make_key("old"), make_key("new")
    publisher.publish(old)
    with publisher.serve() as server, twistd(tmp_path, *WHO, *publisher.options) as service:
        running = Running(service)
        server.next()
        publisher.path.write_text("<html>")
        service.process.send_signal(signal.SIGHUP)
        service.until("could not fetch the keys of .*1 kept")
        status, told = running.readyz()
        assert status == 200
        assert "not a JWK" in str(told["warnings"])
        assert running.knock(sign(old)) == 426
        publisher.publish(new)
        service.process.send_signal(signal.SIGHUP)
        service.until("are now: new")
        assert [running.knock(sign(key)) for key in (old, new)] == [401, 426]
        good = publisher.authority.path.read_bytes()
        publisher.authority.path.write_text("rubbish")
        service.process.send_signal(signal.SIGHUP)
        service.until("kept the old authorities: .*authority.pem is not a chain")
        publisher.authority.path.write_bytes(good)
        Authority(publisher.authority.path.parent)
        service.process.send_signal(signal.SIGHUP)
        service.until("could not fetch the keys of .*certificate verify failed; 1 kept")
        assert running.metric('envelope_jwks_fetches_total{outcome="tls"}') >= 1
        assert running.metric('envelope_jwks_fetches_total{outcome="malformed"}') >= 1
        assert service.stop() == 0


def test_a_stop_does_not_wait_for_a_fetch(
    publisher: Publisher, tmp_path: Path
) -> None:
    """Not even while the start waits for the first keys."""
    program = (
        "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\nc, _ = s.accept()\n"
        "print('asked', flush=True)\nc.recv(9999)\nwhile c.recv(9999): pass\n"
    )
    def popen(_: object, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([*BARE_PYTHON, "-c", program], **more)

    with publisher.serve(popen=popen) as silent, twistd(
        tmp_path, *WHO, *publisher.options
    ) as service:
        assert silent.next() == "asked"
        assert service.stop() == 0
        service.until("stopped")
        assert not [line for line in service.seen if "ready" in line.split()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--verify-jwks-url=http://127.0.0.1/jwks",), "not an https URL"),
        (("--verify-jwks-url=https://me:hush@127.0.0.1/jwks",), "leave it out"),
        (("--verify-jwks-url=https://127.0.0.1/jwks#one",), "leave it out"),
        (("--jwks-ca=ca.pem",), "--jwks-ca needs --verify-jwks-url"),
        (("--verify-jwks-url=https://127.0.0.1/jwks", "--jwks-ca=absent.pem"),
         "absent.pem cannot be read: No such file or directory"),
    ],
)
def test_a_failed_start_is_one_line(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    with twistd(tmp_path, *WHO, *options) as service:
        line = service.next() or ""
        assert line.startswith("envelope: ")
        assert words in line
        assert "hush" not in line
        assert service.next() is None
        assert service.ended() == 1
