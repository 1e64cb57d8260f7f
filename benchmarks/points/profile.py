"""The service's CPU by kind of code while 16 clients come and go, measured by cProfile.

A profiler makes Python code look slower than it is beside C code: read shares, not times.
"""

from __future__ import annotations

import marshal
import re
from typing import Any

from benchmarks.floor import handshake_ms, token_ms
from benchmarks.floorprogram import in_namespace
from benchmarks.lab import BenchLab
from benchmarks.plan import Plan
from benchmarks.variants import Variant

# The first pattern that matches a function's file and name tells its kind.
KINDS = (
    ("waiting for events", r"method 'poll' of 'select.epoll'"),
    ("OpenSSL through pyOpenSSL", r"OpenSSL|_rust|openssl|cffi|twisted/protocols/tls"),
    ("sockets (kernel)", r"_socket|socket.py|epoll|posix\.(read|write)"),
    ("token", r"jwcrypto|envelope/credentials|json|base64|cryptography"),
    ("the firewall", r"envelope/firewall|ipaddress|twisted/internet/(process|fdesc)"),
    ("HTTP and WebSocket", r"h11|autobahn|txaio|envelope/front/(websocket|handshake)"),
    ("sessions", r"envelope/sessions|automat"),
    ("connection", r"envelope/"),
    ("metrics", r"prometheus"),
    ("log", r"twisted/logger|twisted/python/log|constantly"),
    ("Twisted", r"twisted|zope"),
    ("Python's own", r""),
)


def measure(_plan: Plan, variant: Variant) -> dict[str, Any]:
    """Milliseconds a visit by kind, the most expensive functions, and the floor beside them."""
    visits = 2000
    with BenchLab(variant, twistd=(
        "--savestats", "--profiler=cprofile", "--profile=profile.stats",
    )) as lab:
        lab.do("visits", count=visits, at_once=16)
        lab.stop()
        stats = marshal.loads((lab.folder / "profile.stats").read_bytes())
        floor = {"handshake_ms": handshake_ms(lab.folder), **token_ms(lab.folder)}
    own = {key: entry[2] for key, entry in stats.items()}
    shares: dict[str, float] = {}
    for (file, _, name), seconds in own.items():
        kind = next(kind for kind, pattern in KINDS if re.search(pattern, f"{file} {name}"))
        shares[kind] = shares.get(kind, 0.0) + seconds
    idle = shares.pop("waiting for events", 0.0)
    dearest = sorted(own.items(), key=lambda item: -item[1])[:25]
    return {
        "visits": visits, "waiting_seconds": idle,
        "ms_a_visit": {kind: seconds / visits * 1000 for kind, seconds in shares.items()},
        "dearest": [
            {"where": _short(file, name), "ms_a_visit": seconds / visits * 1000}
            for (file, _, name), seconds in dearest
        ],
        "floor": {**floor, "transaction_ms": in_namespace()},
    }


def _short(file: str, name: str) -> str:
    return f"{'/'.join(file.split('/')[-2:])} {name}".removeprefix("~ ")
