"""The least that a visit can cost in user space: TLS handshake, signature, transaction.

Each is done alone in a loop, with the same libraries and tools as in the service.
"""

from __future__ import annotations

import json
import subprocess
import time
from base64 import urlsafe_b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from OpenSSL import SSL

from benchmarks.processes import cpu_seconds
from envelope.credentials.keyfiles import KeyFiles
from envelope.credentials.tls import ServerTLS
from envelope.credentials.tokens import TokenExpectations, verify

_TIMES = 300
_CHUNK = 65536


def handshake_ms(folder: Path) -> float:
    """CPU milliseconds of the server's part of a TLS handshake with request and answer."""
    tls = ServerTLS.load(folder / "cert.pem", folder / "key.pem")
    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    spent = 0.0
    for _ in range(_TIMES):
        server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        client = SSL.Connection(client_context, None)
        client.set_connect_state()
        for _flight in range(3):
            _handshake(client)
            _carry(client, server)
            began = time.thread_time()
            _handshake(server)
            spent += time.thread_time() - began
            _carry(server, client)
        client.send(b"x" * 500)
        _carry(client, server)
        began = time.thread_time()
        server.recv(_CHUNK)
        server.send(b"x" * 200)
        spent += time.thread_time() - began
    return spent / _TIMES * 1000


def _handshake(end: SSL.Connection) -> None:
    with suppress(SSL.WantReadError):
        end.do_handshake()


def _carry(giver: SSL.Connection, taker: SSL.Connection) -> None:
    with suppress(SSL.WantReadError):
        taker.bio_write(giver.bio_read(_CHUNK))


def token_ms(folder: Path) -> dict[str, float]:
    """CPU milliseconds of one Ed25519 verification alone, and of a token's whole check."""
    keys = KeyFiles((folder / "token.pub",)).ring
    expected = TokenExpectations("locate", None)
    tokens = (folder / "tokens").read_text().split()[:_TIMES]
    public = _public_key(folder)
    parts = [token.rpartition(".") for token in tokens]
    signed = [(_decode(signature), text.encode()) for text, _, signature in parts]
    began = time.thread_time()
    for signature, text in signed:
        public.verify(signature, text)
    alone = time.thread_time() - began
    now = time.time()
    began = time.thread_time()
    for token in tokens:
        verify(token, keys, expected, now)
    whole = time.thread_time() - began
    return {"signature": alone / len(tokens) * 1000, "whole": whole / len(tokens) * 1000}


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _public_key(folder: Path) -> Any:
    jwk = json.loads((folder / "token.pub").read_text())
    return Ed25519PublicKey.from_public_bytes(_decode(jwk["x"]))


def transaction_ms(tool: str = "/usr/sbin/iptables-nft-restore") -> float:
    """CPU milliseconds of the open tool for one rule added or deleted.

    To be run in a network namespace of its own.
    """
    child = subprocess.Popen([tool, "--noflush", "-v", "-w", "5"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, bufsize=1)
    assert child.stdin is not None
    assert child.stdout is not None

    def ask(text: str) -> None:
        child.stdin.write(f"*filter\n{text}COMMIT\n#done\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
        for line in child.stdout:  # type: ignore[union-attr]
            if line == "#done\n":
                return
        raise RuntimeError(f"{tool} ended")

    end = "-m time --datestop 2037-01-01T00:00:00 -j ACCEPT"
    ask(f":BENCH - [0:0]\n:BENCH-END - [0:0]\n-A BENCH-END {end}\n")
    before = cpu_seconds(child.pid)
    for number in range(_TIMES):
        rule = f"BENCH -s 192.0.2.{number % 250 + 1}/32 -j BENCH-END\n"
        ask(f"-A {rule}")
        ask(f"-D {rule}")
    spent = cpu_seconds(child.pid) - before
    child.stdin.close()
    child.stdout.close()
    child.wait()
    return spent / _TIMES / 2 * 1000
