"""Nothing that is secret is ever said: not in a log, an answer, a page, a title, or a core dump.

The real service, with its log as twistd writes it and one that keeps nothing back; keys and tokens
good and bad in every place that a client can put them; and faults of every kind that can be
provoked from outside. Then all that the process printed, served and shows in /proc is searched.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from jwcrypto import jwk

from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, make_key, sign, write_certificate
from tests.end_to_end.harness import PATIENCE
from tests.end_to_end.serviceprocess import ServiceProcess, describe
from tests.support.frontfakes import UPGRADE, close_frame, frame, request

ACCESS = b"/v0/envelope/access"
CANARY = b"CanaryWord"
PAGES = ("/", "/metrics", "/livez", "/readyz", "/health", "/status", "/nothing")
STRANGER = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="test")


class Watched(ServiceProcess):
    """A service whose every word is kept."""

    def __init__(self, folder: Path, *own: str) -> None:
        self.folder = folder
        self.served: list[bytes] = []
        super().__init__(
            folder, "--max-clients=2", "--request-timeout=2s", listen=("127.0.0.1:0",), tls=True,
            own=own)

    def throw(self, data: bytes, port: int = 0, before: bytes = b"") -> bytes:
        answer = super().throw(data, port, before)
        self.served.append(answer)
        return answer

    def ask_admin(self, target: str, method: str = "GET", more: bytes = b"") -> None:
        """Ask the admin endpoint, with the canary wherever there is room for it."""
        with socket.create_connection(("127.0.0.1", self.admin_port), PATIENCE) as stream:
            head = f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".encode()
            stream.sendall(head + more + b"\r\n")
            with suppress(ConnectionResetError):
                while answer := stream.recv(65536):
                    self.served.append(answer)

    def reload(self, name: str, text: bytes, said: str) -> None:
        """Put `text` into a file of the service's for the time of a SIGHUP."""
        path = self.folder / name
        before = path.read_bytes()
        path.write_bytes(text)
        os.kill(self.pid, signal.SIGHUP)
        self.service.until(said)
        path.write_bytes(before)

    def shown(self) -> list[bytes]:
        """What the process shows to whoever lists processes."""
        return [Path(f"/proc/{self.pid}/{name}").read_bytes()
                for name in ("cmdline", "comm", "limits")]

    def environment(self) -> bytes:
        """The same of its environment."""
        return Path(f"/proc/{self.pid}/environ").read_bytes()


@pytest.fixture(params=["plainly", "in full"])
def door(request: Any, tmp_path: Path) -> Iterator[Watched]:
    observer = "--logger=tests.end_to_end.fulllogobserver.observer"
    own = () if request.param == "plainly" else (observer,)
    with Watched(tmp_path, *own) as door:
        yield door


def tokens(door: Watched) -> dict[str, bytes]:
    """One of each verdict, each with the canary in it."""
    word = CANARY.decode()
    good = door.token(jti=word)
    return {
        "good": good, "expired": door.token(lasts=-5, jti=word), "early": door.token(nbf=4e9),
        "a stranger's": sign(STRANGER, jti=word).encode(), "cut": good[:-4],
        "for another": door.token(aud=word), "of another": door.token(iss=word),
        "of another subject": door.token(sub=word), "without an end": door.token(exp=None),
        "odd": door.token(iat=word), "padded": good + b"=", "bare": CANARY, "of parts": b"a." * 2,
        "unknown": b"eyJhbGciOiJFZERTQSIsImtpZCI6IkNhbmFyeVdvcmQifQ.e30.AAAA",
        "long": CANARY * 900, "empty": b"",
    }


HEADERS = cycle((
    b"Authorization: Bearer ", b"Cookie: ", b"Referer: /?access_token=", b"Origin: ", b"Host: ",
    b"Sec-WebSocket-Protocol: ", b"User-Agent: ", b"X-Forwarded-For: ",
))


def say_everything(door: Watched) -> None:
    """Each token in the query and in the path, and in one header each; two of them everywhere."""
    query = ACCESS + b"?access_token="
    for what, token in tokens(door).items():
        for target in (query + token + b"&other=" + CANARY, ACCESS + b"/" + token):
            door.throw(request(b"GET " + target + b" HTTP/1.1", after=close_frame(1000, CANARY)))
        door.throw(request(b"GET " + ACCESS + b" HTTP/1.1",
                           UPGRADE + next(HEADERS) + token[:4000] + b"\r\n"))
        if what not in ("good", "a stranger's"):
            continue
        for line in (
            b"GET /" + token, b"GET " + ACCESS + b"?x=" + token, b"GET " + query + token + b"#",
            b"GET http://" + CANARY + query + token, CANARY + b" " + query + token,
            b"POST " + query + token,
        ):
            more = UPGRADE + b"Content-Length: %d\r\n" % len(CANARY)
            door.throw(request(line + b" HTTP/1.1", more, CANARY))
        door.throw(b"GET " + query + token + b" HTTP/9.9\r\n\r\n")
        door.throw(b"GET " + query + token + b"\n\n")


def misbehave_inside(door: Watched) -> None:
    """With a session open: data, broken frames, floods, and no goodbye."""
    line = b"GET " + ACCESS + b"?access_token=%s HTTP/1.1"
    for behind in (frame(1, CANARY), frame(2, CANARY, fin=False), frame(9, b"ping") * 150,
                   frame(8, b"\x03\xe8\xff" + CANARY), frame(3, CANARY), CANARY,
                   close_frame(4999, CANARY)):
        answer = door.throw(request(line % door.token(jti=CANARY.decode()), after=behind))
        assert describe(answer)["status"] == 101
    with door.speak() as stream:
        stream.sendall(request(line % door.token(jti=CANARY.decode())))
        assert stream.recv(12) == b"HTTP/1.1 101"
    with door.connect() as bare:
        bare.sendall(b"GET /?access_token=" + CANARY + b" HTTP/1.1\r\n\r\n")
        door.served.append(bare.recv(4096))
    door.settle()


def make_it_fail(door: Watched) -> None:
    """Files that cannot be used, with keys in them; and no descriptors left."""
    private = door.key.export_private().encode()
    pem = (door.folder / "key.pem").read_bytes()
    der = door.key.export_to_pem(private_key=True, password=None)
    for text in (private, pem, der, CANARY, b'{"keys":[' + private + b"]}"):
        door.reload("key.pub", text, "kept the old keys")
    for name in ("cert.pem", "key.pem"):
        for text in (private, CANARY, pem[:80], pem[::-1], b""):
            door.reload(name, text, "kept the old certificate")
    kept = resource.prlimit(door.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(door.pid, resource.RLIMIT_NOFILE, (5, kept[1]))
    with socket.create_connection(("127.0.0.1", door.ports[0]), PATIENCE) as stream:
        stream.sendall(CANARY)
        door.service.until("nobody can be accepted now")
    resource.prlimit(door.pid, resource.RLIMIT_NOFILE, kept)


def search(where: str, texts: list[bytes], words: list[bytes]) -> None:
    for text in texts:
        for word in words:
            assert word not in text, f"{word[:20]!r}… in {where}: {text[:2000]!r}"


def test_nothing_secret_is_said_whatever_is_sent_and_whatever_goes_wrong(door: Watched) -> None:
    say_everything(door)
    misbehave_inside(door)
    make_it_fail(door)
    for page in PAGES:
        door.ask_admin(page)
        door.ask_admin(f"{page}?{CANARY.decode()}", more=b"Cookie: " + CANARY + b"\r\n")
        door.ask_admin(f"{page}{CANARY.decode()}", CANARY.decode())
    words = [CANARY, *private_parts(door), b"eyJ"]
    # The environment is its parent's, in which whatever measures coverage has base64 of its own.
    search("the environment", [door.environment()], words[:-1])
    search("what the process shows", door.shown(), words)
    assert b"Max core file size        0                    0 " in door.shown()[2]
    log = [line.encode() for line in door.stop()]
    assert any(b"refused with 401" in line for line in log), "down to debug"
    search("an answer", door.served, words)
    search("the log", log, [*words, b"access_token"])
    assert len(door.served) > 80


def private_parts(door: Watched) -> list[bytes]:
    """Of the tokens' key and of the certificate's."""
    lines = (door.folder / "key.pem").read_bytes().splitlines()[1:-1]
    return [door.key.export_private(as_dict=True)["d"].encode(), *lines]


def test_a_log_file_of_twistds_is_as_silent(tmp_path: Path) -> None:
    """It is twistd that writes it, by its own rules."""
    write_certificate(tmp_path)
    key = make_key(tmp_path)
    (tmp_path / "log").touch()
    with subprocess.Popen(["tail", "-F", "-n", "+1", tmp_path / "log"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail, \
        subprocess.Popen(
            [sys.executable, Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "-l",
             "log", "envelope", "--firewall=none", "--verify-key=key.pub",
             "--admin=none", f"--machine={MACHINE}", f"--subject={SUBJECT}",
             "--listen=127.0.0.1:0"], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT) as service:
        assert tail.stdout is not None
        port = 0
        for line in tail.stdout:
            if "listening on" in line:
                port = int(line.rpartition("port=")[2].rstrip(")\n"))
            if line.endswith("ready\n"):
                break
        for token in (sign(key, jti=CANARY.decode()), sign(STRANGER), CANARY.decode()):
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as stream:
                line = f"GET {ACCESS.decode()}?access_token={token} HTTP/1.1"
                stream.sendall(request(line.encode(), after=close_frame(1000)))
                while stream.recv(65536):
                    pass
        service.terminate()
        printed = service.communicate(timeout=PATIENCE)[0]
        tail.terminate()
    log = (tmp_path / "log").read_bytes()
    assert b"session" in log
    search("the log file", [log, printed], [CANARY, b"eyJ", b"access_token"])


def test_no_core_is_left_when_the_process_dies_of_a_signal(tmp_path: Path) -> None:
    """Though its parent allows as large a one as may be."""
    own = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (own[1], own[1]))
    try:
        door = Watched(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, own)
    with door:
        os.kill(door.pid, signal.SIGABRT)
        ended = os.waitid(os.P_PID, door.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == signal.SIGABRT
    assert ended.si_code == os.CLD_KILLED, "and not CLD_DUMPED"


MIXED_UP = {
    "a private key to verify with": ("--verify-key=private.jwk", "a private key does not belong"),
    "a key for the certificate": ("--cert=key.pem", "cert"),
    "a certificate for the key": ("--key=cert.pem", "key"),
    "a pem to verify with": ("--verify-key=key.pem", "not a JWK"),
}


@pytest.mark.parametrize("what", MIXED_UP)
def test_files_mixed_up_at_the_start_are_one_line_without_a_secret(
    tmp_path: Path, what: str
) -> None:
    """Exit status 1; nothing of a private key is repeated."""
    write_certificate(tmp_path)
    key = make_key(tmp_path)
    (tmp_path / "private.jwk").write_text(key.export_private())
    option, said = MIXED_UP[what]
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "envelope",
         "--firewall=none", "--verify-key=key.pub", f"--machine={MACHINE}", f"--subject={SUBJECT}",
         "--cert=cert.pem", "--key=key.pem", option],
        cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    for line in (tmp_path / "key.pem").read_text().splitlines()[1:-1]:
        assert line not in done.stdout + done.stderr
    assert key.export_private(as_dict=True)["d"] not in done.stdout + done.stderr
