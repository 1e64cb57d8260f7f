"""No secret is ever shown: in a log, an answer, a page, a process title, or a core dump.

The real service runs with twistd's log, and with an observer that prints every field. It gets good
and bad keys and tokens in every place where a client can put them, and every kind of fault that can
be caused from outside. Then all that it printed, served and shows in /proc is searched.
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
from itertools import cycle, product
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
    """A service whose log and answers are all kept."""

    def __init__(self, folder: Path, *own: str) -> None:
        self.folder = folder
        self.served: list[bytes] = []
        super().__init__(
            folder, "--max-clients=2", "--request-timeout=2s", listen=("127.0.0.1:0",), tls=True,
            own=own)

    def exchange(self, data: bytes, port: int = 0, before: bytes = b"") -> bytes:
        answer = super().exchange(data, port, before)
        self.served.append(answer)
        return answer

    def ask_operators(
        self, port: int, target: str, method: str = "GET", more: bytes = b"Host: localhost\r\n"
    ) -> None:
        """Send a site for operators a request with the canary in every possible place."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as stream:
            head = f"{method} {target} HTTP/1.1\r\nConnection: close\r\n".encode()
            stream.sendall(head + more + b"\r\n")
            with suppress(ConnectionResetError):
                while answer := stream.recv(65536):
                    self.served.append(answer)

    def reload(self, name: str, text: bytes, said: str) -> None:
        """Replace a file of the service, send SIGHUP, wait for the line `said`, put it back."""
        path = self.folder / name
        before = path.read_bytes()
        path.write_bytes(text)
        os.kill(self.pid, signal.SIGHUP)
        self.service.until(said)
        path.write_bytes(before)

    def shown(self) -> list[bytes]:
        """Command line, name and limits of the process, as /proc shows them."""
        return [Path(f"/proc/{self.pid}/{name}").read_bytes()
                for name in ("cmdline", "comm", "limits")]

    def environment(self) -> bytes:
        """The process's environment, as /proc shows it."""
        return Path(f"/proc/{self.pid}/environ").read_bytes()


@pytest.fixture(params=["plainly", "in full"])
def running(request: Any, tmp_path: Path) -> Iterator[Watched]:
    observer = "--logger=tests.end_to_end.fulllogobserver.observer"
    own = () if request.param == "plainly" else (observer,)
    with Watched(tmp_path, *own) as running:
        yield running


def tokens(running: Watched) -> dict[str, bytes]:
    """A token for each verdict, each with the canary in it.

    Not in the `jti` of a session's token, which the log shows.
    """
    word = CANARY.decode()
    good = running.token(note=word)
    return {
        "good": good, "expired": running.token(lasts=-5, jti=word), "early": running.token(nbf=4e9),
        "a stranger's": sign(STRANGER, jti=word).encode(), "cut": good[:-4],
        "for another": running.token(aud=word), "of another": running.token(iss=word),
        "of another subject": running.token(sub=word), "without an end": running.token(exp=None),
        "odd": running.token(iat=word), "padded": good + b"=", "bare": CANARY,
        "of parts": b"a." * 2,
        "unknown": b"eyJhbGciOiJFZERTQSIsImtpZCI6IkNhbmFyeVdvcmQifQ.e30.AAAA",
        "long": CANARY * 900, "empty": b"",
    }


HEADERS = cycle((
    b"Authorization: Bearer ", b"Cookie: ", b"Referer: /?access_token=", b"Origin: ", b"Host: ",
    b"Sec-WebSocket-Protocol: ", b"User-Agent: ", b"X-Forwarded-For: ",
))


def send_tokens_everywhere(running: Watched) -> None:
    """Send each token in the query, in the path and in a header; two of them in more places."""
    query = ACCESS + b"?access_token="
    for what, token in tokens(running).items():
        for target in (query + token + b"&other=" + CANARY, ACCESS + b"/" + token):
            running.exchange(
                request(b"GET " + target + b" HTTP/1.1", after=close_frame(1000, CANARY)))
        running.exchange(request(
            b"GET " + ACCESS + b" HTTP/1.1", UPGRADE + next(HEADERS) + token[:4000] + b"\r\n"))
        if what not in ("good", "a stranger's"):
            continue
        for line in (
            b"GET /" + token, b"GET " + ACCESS + b"?x=" + token, b"GET " + query + token + b"#",
            b"GET http://" + CANARY + query + token, CANARY + b" " + query + token,
            b"POST " + query + token,
        ):
            more = UPGRADE + b"Content-Length: %d\r\n" % len(CANARY)
            running.exchange(request(line + b" HTTP/1.1", more, CANARY))
        running.exchange(b"GET " + query + token + b" HTTP/9.9\r\n\r\n")
        running.exchange(b"GET " + query + token + b"\n\n")


def misbehave_in_sessions(running: Watched) -> None:
    """In open sessions: data, broken frames, floods, and a disconnect without a close frame."""
    line = b"GET " + ACCESS + b"?access_token=%s HTTP/1.1"
    for behind in (frame(1, CANARY), frame(2, CANARY, fin=False), frame(9, b"ping") * 150,
                   frame(8, b"\x03\xe8\xff" + CANARY), frame(3, CANARY), CANARY,
                   close_frame(4999, CANARY)):
        answer = running.exchange(request(line % running.token(note=CANARY.decode()), after=behind))
        assert describe(answer)["status"] == 101
    with running.open_stream() as stream:
        stream.sendall(request(line % running.token(note=CANARY.decode())))
        assert stream.recv(12) == b"HTTP/1.1 101"
    with running.connect() as bare:
        bare.sendall(b"GET /?access_token=" + CANARY + b" HTTP/1.1\r\n\r\n")
        running.served.append(bare.recv(4096))
    running.wait_until_idle()


def make_reloads_and_accepts_fail(running: Watched) -> None:
    """Reload unusable files that contain keys, and run out of descriptors."""
    private = running.key.export_private().encode()
    pem = (running.folder / "key.pem").read_bytes()
    der = running.key.export_to_pem(private_key=True, password=None)
    for text in (private, pem, der, CANARY, b'{"keys":[' + private + b"]}"):
        running.reload("key.pub", text, "kept the old keys")
    for name in ("cert.pem", "key.pem"):
        for text in (private, CANARY, pem[:80], pem[::-1], b""):
            running.reload(name, text, "kept the old certificate")
    kept = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (5, kept[1]))
    with socket.create_connection(("127.0.0.1", running.ports[0]), PATIENCE) as stream:
        stream.sendall(CANARY)
        running.service.until("no connection can be accepted now")
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, kept)


def search(where: str, texts: list[bytes], words: list[bytes]) -> None:
    for text in texts:
        for word in words:
            assert word not in text, f"{word[:20]!r}… in {where}: {text[:2000]!r}"


def test_no_secret_is_shown_whatever_is_sent_and_whatever_fails(running: Watched) -> None:
    send_tokens_everywhere(running)
    misbehave_in_sessions(running)
    make_reloads_and_accepts_fail(running)
    for page, port in product(PAGES, (running.admin_port, running.status_port)):
        running.ask_operators(port, page)
        more = b"Host: %s\r\nCookie: %s\r\n" % (CANARY, CANARY)
        running.ask_operators(port, f"{page}?{CANARY.decode()}", more=more)
        running.ask_operators(port, f"{page}{CANARY.decode()}", CANARY.decode())
    words = [CANARY, *private_parts(running), b"eyJ"]
    # The environment is inherited, and coverage puts base64 of its own there.
    search("the environment", [running.environment()], words[:-1])
    search("what the process shows", running.shown(), words)
    assert b"Max core file size        0                    0 " in running.shown()[2]
    log = [line.encode() for line in running.stop()]
    assert any(b"refused with 401" in line for line in log), "the log does not reach down to debug"
    search("an answer", running.served, words)
    search("the log", log, [*words, b"access_token"])
    assert len(running.served) > 80


def private_parts(running: Watched) -> list[bytes]:
    """The private parts of the tokens' key and of the certificate's key."""
    lines = (running.folder / "key.pem").read_bytes().splitlines()[1:-1]
    return [running.key.export_private(as_dict=True)["d"].encode(), *lines]


def test_twistds_log_file_shows_no_secret(tmp_path: Path) -> None:
    """The file is written by twistd, in its own format."""
    write_certificate(tmp_path)
    key = make_key(tmp_path)
    (tmp_path / "log").touch()
    with subprocess.Popen(["tail", "-F", "-n", "+1", tmp_path / "log"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail, \
        subprocess.Popen(
            [sys.executable, Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "-l",
             "log", "envelope", "--firewall=none", "--verify-key=key.pub",
             "--admin=none", "--status=none", f"--machine={MACHINE}", f"--subject={SUBJECT}",
             "--listen=127.0.0.1:0"], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT) as service:
        assert tail.stdout is not None
        port = 0
        for line in tail.stdout:
            if "listening on" in line:
                port = int(line.rpartition("port=")[2].rstrip(")\n"))
            if line.endswith("ready\n"):
                break
        for token in (sign(key, note=CANARY.decode()), sign(STRANGER), CANARY.decode()):
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
    """Although the parent's limit for core files is unlimited."""
    own = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (own[1], own[1]))
    try:
        running = Watched(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, own)
    with running:
        os.kill(running.pid, signal.SIGABRT)
        ended = os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == signal.SIGABRT
    assert ended.si_code == os.CLD_KILLED, "it left a core (CLD_DUMPED)"


MIXED_UP = {
    "a private key to verify with": ("--verify-key=private.jwk", "a private key does not belong"),
    "a key for the certificate": ("--cert=key.pem", "cert"),
    "a certificate for the key": ("--key=cert.pem", "key"),
    "a pem to verify with": ("--verify-key=key.pem", "not a JWK"),
}


@pytest.mark.parametrize("what", MIXED_UP)
def test_a_start_with_exchanged_files_is_one_line_without_a_secret(
    tmp_path: Path, what: str
) -> None:
    """Exit status 1; the line repeats nothing of a private key."""
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
