"""The real service through twistd on this machine's loopback, without a firewall to manage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.harness import PATIENCE, Service

TWISTD = Path(sys.executable).with_name("twistd")


@contextmanager
def twistd(
    folder: Path, *options: str, env: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
) -> Iterator[Service]:
    """A service with these options and free ports; `before` are twistd's own options."""
    process = subprocess.Popen(
        [sys.executable, TWISTD, "-n", "--pidfile=", *before, "envelope",
         "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--firewall=none", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, cwd=folder,
        env={**os.environ, **(env or {})},
    )
    service = Service(process)
    try:
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        service.reader.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def port_of(service: Service, what: str = "listening") -> int:
    """The port that its log names."""
    return int(service.until(rf"{what} .*port=(\d+)")[1])
