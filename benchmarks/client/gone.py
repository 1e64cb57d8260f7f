"""When a revoked grant is gone, measured by the first refused packet of its client."""

from __future__ import annotations

import socket
import time

from benchmarks.client.crowd import Crowd

# Seconds between two packets while the grant still holds.
_PAUSE = 0.0002
PATIENCE = 10.0


def seconds_until_gone(crowd: Crowd, echo: tuple[str, int]) -> float:
    """Make one visit; returns the seconds from its close frame to the first refused packet."""
    visitor = crowd.enter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((visitor.source, 0))
        probe.connect(echo)
        probe.settimeout(1.0)
        if not _passes(probe):
            raise RuntimeError("a client that was let in is refused")
        visitor.leave()
        while _passes(probe):
            if time.perf_counter() - visitor.left > PATIENCE:
                raise RuntimeError(f"still let in after {PATIENCE:g} s")
            time.sleep(_PAUSE)
        gone = time.perf_counter() - visitor.left
    crowd.see_off(visitor)
    return gone


def _passes(probe: socket.socket) -> bool:
    """Whether a packet is answered; a refused one causes an ICMP error."""
    try:
        probe.send(b"?")
        probe.recv(16)
    except (ConnectionRefusedError, TimeoutError):
        return False
    return True
