"""The guarded services, as a program on the service's host: a UDP echo, and sinks for floods.

It prints their ports, and runs until its standard input ends. The sink for IPv6 has the port of the
one for IPv4.
"""

from __future__ import annotations

import select
import socket
import sys


def main() -> None:
    """Serve."""
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for opened in (echo, sink):
        opened.bind(("0.0.0.0", 0))
    six.bind(("::", sink.getsockname()[1]))
    # Sinks are never read: the kernel counts the packets that passed the rules, and drops them.
    for opened in (sink, six):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    print(echo.getsockname()[1], sink.getsockname()[1], flush=True)
    while True:
        ready, _, _ = select.select([echo, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        data, peer = echo.recvfrom(64)
        echo.sendto(data, peer)


if __name__ == "__main__":
    main()
