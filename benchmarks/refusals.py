"""What a refusal costs, and how long good clients take during a flood.

    tools/in-namespace .venv/bin/python -m benchmarks.refusals [TIMES, 1000] [FLOOD, 2000]

First: CPU milliseconds of the service for each kind of refusal, mean of TIMES connections one after
the other. Then: memory of the service, and good clients' milliseconds from connecting to the
answer, during each kind of flood of FLOOD connections. All on loopback, over TLS 1.3 with a P-256
certificate, with access tokens but without rules.
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


def cpu(running: ServiceProcess) -> float:
    """CPU seconds that the service has used."""
    fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(running: ServiceProcess) -> float:
    """Resident memory of the service in megabytes."""
    status = Path(f"/proc/{running.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def _shake_hands(running: ServiceProcess) -> None:
    with closing(running.open_stream()):
        pass


def _let_in(running: ServiceProcess) -> None:
    good = HELLO.replace(b"access_token=good", b"access_token=" + running.token())
    answer = running.exchange(good + close_frame(1000))
    assert answer.startswith(b"HTTP/1.1 101 ")


def refusals(running: ServiceProcess, times: int) -> None:
    """Print the CPU of each kind of refusal."""
    forged = HELLO.replace(
        b"access_token=good",
        b"access_token=" + running.token().rpartition(b".")[0] + b"." + b"A" * 86,
    )
    kinds: dict[str, Callable[[], object]] = {
        "TLS handshake, then close": lambda: _shake_hands(running),
        "another path, 404": lambda: running.exchange(request(b"GET / HTTP/1.1")),
        "no HTTP, 400": lambda: running.exchange(b"\0"),
        "token with a bad signature, 401": lambda: running.exchange(forged),
        "let in, and left at once, 101": lambda: _let_in(running),
    }
    for kind, once in kinds.items():
        once()
        before = cpu(running)
        for _ in range(times):
            once()
        print(f"{kind:34}{(cpu(running) - before) / times * 1000:6.2f} ms")
        running.wait_until_idle()


def floods(running: ServiceProcess, number: int) -> None:
    """Print memory and good clients' times for each kind of flood."""
    for kind in ("silent", "hello", "drip", "token"):
        holders = number // 20 if kind == "token" else number
        process = subprocess.Popen(
            [sys.executable, floodprogram.__file__, kind, str(holders), "127.0.0.1",
             str(running.ports[0]), *(f"127.0.1.{n}" for n in range(1, 201))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        took = []
        for _ in range(_VISITS):
            began = time.perf_counter()
            _let_in(running)
            took.append((time.perf_counter() - began) * 1000)
        print(
            f"{kind:10}{holders:6} connections: {memory(running):4.0f} MB, good clients "
            f"{median(took):5.0f} ms in the median, {max(took):5.0f} ms at most"
        )
        process.communicate("")
        running.wait_until_idle()


def main() -> None:
    """Measure and print."""
    given = [int(text) for text in sys.argv[1:]]
    times, number = given + [1000, 2000][len(given) :]
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess(
            Path(folder), "--max-clients=3", listen=("127.0.0.1:0",), tls=True
        ) as running,
    ):
        print(f"{ssl.OPENSSL_VERSION}; idle: {memory(running):.0f} MB")
        refusals(running, times)
        floods(running, number)
        running.stop()


if __name__ == "__main__":
    main()
