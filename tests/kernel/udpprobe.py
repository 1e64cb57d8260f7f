"""UDP packets over this network's loopback: does a source get through? Some 0.1 ms each."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

PORT = 7777
HOST = {4: "203.0.113.1", 6: "2001:db8::1"}
_PATIENCE = 20.0


@contextmanager
def addresses(*sources: str) -> Iterator[None]:
    """A context manager: the loopback device has the addresses of `HOST` and these."""
    places = [f"{each}/{128 if ':' in each else 32} dev lo" for each in (*HOST.values(), *sources)]
    _ip(f"address add {place}" + (" nodad" if ":" in place else "") for place in places)
    try:
        yield
    finally:
        _ip(f"address del {place}" for place in places)


def _ip(lines: Iterable[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True,
                   capture_output=True)


class Listener:
    """Receives the packets to `ports` that get through, by default `PORT`; a context manager."""

    def __init__(self, *ports: int) -> None:
        self._ports = ports or (PORT,)

    def __enter__(self) -> Listener:
        self._heard = {}
        for port in self._ports:
            heard = self._heard[port] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            heard.bind(("::", port))
        return self

    def __exit__(self, *_: object) -> None:
        for heard in self._heard.values():
            heard.close()

    def hears(self, source: str, port: int = PORT) -> bool:
        """Whether a packet from `source` gets through; a refused one must cause an error."""
        family, version = (socket.AF_INET6, 6) if ":" in source else (socket.AF_INET, 4)
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.bind((source, 0))
            sender.connect((HOST[version], port))
            sender.send(b"x")
            heard = self._heard[port]
            ready, _, _ = select.select([heard, sender], [], [], _PATIENCE)
            assert ready, f"the packet of {source} to {port} was dropped without an error"
            if heard in ready:
                heard.recv(1)
            return heard in ready
