"""What the envelope guards, as a program on the service's host: an echo, and a sink for floods.

Prints the ports of both, then works until its input ends.
"""

from __future__ import annotations

import select
import socket
import sys


def main() -> None:
    """Serve."""
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # Nobody reads it: what has passed the rules is counted by the kernel, then dropped.
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
