"""The demo's programs besides the service: a measurement server, and a client.

They run on the demo's hosts as `python programs.py serve|measure|upload|hold …`. They import the
standard library only, so that they start fast and share no code with the service.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

# Bytes that the measurement server sends to each client.
VOLUME = 32 * 2**20
# What a client wants is its first byte.
_DOWNLOAD, _UPLOAD = b"d", b"u"
_CHUNK = 2**18
# Seconds between two lines of an upload.
_INTERVAL = 0.1
# Seconds for connecting, and for each answer.
_TIMEOUT = 2.0
# The first byte of a close frame (RFC 6455 section 5.2: FIN and opcode 8).
_CLOSE = 0x88


def serve(port: str) -> int:
    """Listen on IPv4 and IPv6; send `VOLUME` bytes to each client, or receive what it uploads."""
    listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    _print("is ready")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(connection,), daemon=True).start()


def _serve_one(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        if connection.recv(1) == _UPLOAD:
            buffer = bytearray(_CHUNK)
            while connection.recv_into(buffer):
                pass
        else:
            connection.sendall(bytes(VOLUME))


def measure(address: str, port: str) -> int:
    """Receive all of it and print the rate; the status is 1 when the host refuses."""
    began, count = time.monotonic(), 0
    try:
        with socket.create_connection((address, int(port)), _TIMEOUT) as connection:
            connection.sendall(_DOWNLOAD)
            while chunk := connection.recv(2**16):
                count += len(chunk)
    except OSError as error:
        _print(error.strerror or str(error))
        return 1
    rate = count * 8 / (time.monotonic() - began) / 1e9
    _print(f"{count / 2**20:.0f} MiB at {rate:.1f} Gbit/s")
    return 0 if count == VOLUME else 1


def upload(address: str, port: str) -> int:
    """Send without end; print the seconds and bytes since the start, ten times a second.

    The last line says why it ended.
    """
    count, chunk = 0, bytes(_CHUNK)
    try:
        with socket.create_connection((address, int(port)), _TIMEOUT) as connection:
            connection.sendall(_UPLOAD)
            began = told = time.monotonic()
            while True:
                count += connection.send(chunk)
                now = time.monotonic()
                if now - told >= _INTERVAL:
                    told = now
                    _print(f"{now - began:.3f} {count}")
    except OSError as error:
        _print(error.strerror or str(error))
        return 1


def hold(address: str, port: str, trusted: str, path: str) -> int:
    """Open an envelope with the token on standard input, and hold it until the service closes.

    Prints `answers STATUS`, and then `closes with CODE REASON`.
    """
    token = sys.stdin.readline().strip()
    try:
        return _hold(address, port, trusted, f"{path}?access_token={token}" if token else path)
    except (OSError, EOFError) as error:
        _print(f"lost the connection: {error}")
        return 1


def _hold(address: str, port: str, trusted: str, target: str) -> int:
    context = ssl.create_default_context(cafile=trusted)
    with (
        socket.create_connection((address, int(port)), _TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=address) as stream,
        stream.makefile("rb") as incoming,
    ):
        stream.sendall(_request(address, port, target))
        status = incoming.readline().decode().split(" ")
        if len(status) < 2:
            raise EOFError("no answer")
        while incoming.readline().strip():
            pass
        _print(f"answers {status[1]}")
        if status[1] != "101":
            return 1
        stream.settimeout(None)
        code, reason = _read_close(incoming)
        _print(f"closes with {code} {reason}")
        stream.sendall(bytes([_CLOSE, 0x80 | 2, 0, 0, 0, 0]) + struct.pack("!H", code))
    return 0


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _request(address: str, port: str, target: str) -> bytes:
    host = f"[{address}]" if ":" in address else address
    return "\r\n".join([
        f"GET {target} HTTP/1.1",
        f"Host: {host}:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Protocol: net.measurementlab.envelope",
        "", "",
    ]).encode()


def _read_close(incoming: BinaryIO) -> tuple[int, str]:
    """Read the close frame, the only frame that the service sends unasked."""
    head = incoming.read(2)
    if len(head) < 2:
        raise EOFError("no close frame")
    if head[0] != _CLOSE:
        raise EOFError(f"frame {head[0]:#x} instead of a close frame")
    payload = incoming.read(head[1])
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


if __name__ == "__main__":
    commands: dict[str, Callable[..., int]] = {
        "serve": serve, "measure": measure, "upload": upload, "hold": hold,
    }
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
