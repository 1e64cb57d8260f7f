"""What refusing costs, and how a good client fares in a flood.

    tools/in-namespace .venv/bin/python -m benchmarks.refusals [TIMES, 1000] [FLOOD, 2000]

First the CPU of the service's process, in milliseconds, for each of TIMES connections one after the
other; then, in a flood of FLOOD connections, its memory and how long good clients took from
connecting to the answer. On loopback over TLS 1.3 with a P-256 certificate, with access tokens but
without rules.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from tests.end_to_end import floodprogram
from tests.end_to_end.serviceprocess import ServiceProcess
from tests.support.frontfakes import HELLO, close_frame, request

_TICKS = os.sysconf("SC_CLK_TCK")
_VISITS = 40


def cpu(door: ServiceProcess) -> float:
    """Seconds of CPU that the service has used."""
    fields = Path(f"/proc/{door.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(door: ServiceProcess) -> float:
    """Megabytes that the service holds."""
    status = Path(f"/proc/{door.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def _shake_hands(door: ServiceProcess) -> None:
    with closing(door.speak()):
        pass


def _let_in(door: ServiceProcess) -> None:
    good = HELLO.replace(b"access_token=good", b"access_token=" + door.token())
    answer = door.throw(good + close_frame(1000))
    assert answer.startswith(b"HTTP/1.1 101 ")


def refusals(door: ServiceProcess, times: int) -> None:
    """Print what each kind costs."""
    forged = HELLO.replace(
        b"access_token=good", b"access_token=" + door.token().rpartition(b".")[0] + b"." + b"A" * 86
    )
    kinds: dict[str, Callable[[], object]] = {
        "TLS handshake, then close": lambda: _shake_hands(door),
        "another path, 404": lambda: door.throw(request(b"GET / HTTP/1.1")),
        "no HTTP, 400": lambda: door.throw(b"\0"),
        "token with a bad signature, 401": lambda: door.throw(forged),
        "let in, and left at once, 101": lambda: _let_in(door),
    }
    for kind, once in kinds.items():
        once()
        before = cpu(door)
        for _ in range(times):
            once()
        print(f"{kind:34}{(cpu(door) - before) / times * 1000:6.2f} ms")
        door.settle()


def floods(door: ServiceProcess, number: int) -> None:
    """Print what each kind of flood does to memory and good clients."""
    for kind in ("silent", "hello", "drip", "token"):
        holders = number // 20 if kind == "token" else number
        process = subprocess.Popen(
            [sys.executable, floodprogram.__file__, kind, str(holders), "127.0.0.1",
             str(door.ports[0]), *(f"127.0.1.{n}" for n in range(1, 201))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        took = []
        for _ in range(_VISITS):
            began = time.perf_counter()
            _let_in(door)
            took.append((time.perf_counter() - began) * 1000)
        print(
            f"{kind:10}{holders:6} connections: {memory(door):4.0f} MB, good clients "
            f"{median(took):5.0f} ms in the median, {max(took):5.0f} ms at most"
        )
        process.communicate("")
        door.settle()


def main() -> None:
    """Measure and print."""
    given = [int(text) for text in sys.argv[1:]]
    times, number = given + [1000, 2000][len(given) :]
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess(Path(folder), "--max-clients=3", listen=("127.0.0.1:0",), tls=True) as door,
    ):
        print(f"{ssl.OPENSSL_VERSION}; idle: {memory(door):.0f} MB")
        refusals(door, times)
        floods(door, number)
        door.stop()


if __name__ == "__main__":
    main()
