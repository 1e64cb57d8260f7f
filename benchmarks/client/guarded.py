"""The guarded services, as a program on the service's host: a UDP echo, and a sink for floods.

It prints both ports, and runs until its standard input ends.
"""

from __future__ import annotations

import select
import socket
import sys


def main() -> None:
    """Serve."""
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # The sink is never read: the kernel counts the packets that passed the rules, and drops them.
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for opened in (echo, sink):
        opened.bind(("0.0.0.0", 0))
    print(echo.getsockname()[1], sink.getsockname()[1], flush=True)
    while True:
        ready, _, _ = select.select([echo, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        data, peer = echo.recvfrom(64)
        echo.sendto(data, peer)


if __name__ == "__main__":
    main()
