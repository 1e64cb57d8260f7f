"""Stand-ins for what the demo needs besides the service: a measurement server, and a client.

Run as programs on the demo's hosts (`python -m envelope.lab.programs …`). Standard library only:
they start fast, and share no code with the service they talk to.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

VOLUME = 32 * 2**20
_PATIENCE = 2.0
_CLOSE = 0x88


def serve(port: str) -> int:
    """Send everyone who connects, over IPv4 or IPv6, a few megabytes."""
    listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    volume = bytes(VOLUME)
    _say("serves")
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(volume)


def measure(address: str, port: str) -> int:
    """Receive all of it and say how fast it came; 1 if the host does not let us."""
    began, count = time.monotonic(), 0
    try:
        with socket.create_connection((address, int(port)), _PATIENCE) as connection:
            while chunk := connection.recv(2**16):
                count += len(chunk)
    except OSError as error:
        _say(error.strerror or str(error))
        return 1
    rate = count * 8 / (time.monotonic() - began) / 1e9
    _say(f"{count / 2**20:.0f} MiB at {rate:.1f} Gbit/s")
    return 0 if count == VOLUME else 1


def hold(address: str, port: str, trusted: str, path: str) -> int:
    """Open an envelope with the token on standard input; hold it until the service closes.

    Says `answers STATUS`, and then `closes with CODE REASON`.
    """
    token = sys.stdin.readline().strip()
    try:
        return _hold(address, port, trusted, f"{path}?access_token={token}" if token else path)
    except (OSError, EOFError) as error:
        _say(f"is lost: {error}")
        return 1


def _hold(address: str, port: str, trusted: str, target: str) -> int:
    context = ssl.create_default_context(cafile=trusted)
    with (
        socket.create_connection((address, int(port)), _PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=address) as stream,
        stream.makefile("rb") as incoming,
    ):
        stream.sendall(_request(address, port, target))
        status = incoming.readline().decode().split(" ")
        if len(status) < 2:
            raise EOFError("no answer")
        while incoming.readline().strip():
            pass
        _say(f"answers {status[1]}")
        if status[1] != "101":
            return 1
        stream.settimeout(None)
        code, reason = _read_close(incoming)
        _say(f"closes with {code} {reason}")
        stream.sendall(bytes([_CLOSE, 0x80 | 2, 0, 0, 0, 0]) + struct.pack("!H", code))
    return 0


def _say(text: str) -> None:
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
    """The close frame: the service sends nothing else on its own."""
    head = incoming.read(2)
    if len(head) < 2:
        raise EOFError("no close frame")
    if head[0] != _CLOSE:
        raise EOFError(f"frame {head[0]:#x} where only a close was to come")
    payload = incoming.read(head[1])
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


if __name__ == "__main__":
    commands: dict[str, Callable[..., int]] = {"serve": serve, "measure": measure, "hold": hold}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
