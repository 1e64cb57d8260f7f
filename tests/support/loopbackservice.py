"""The real service, run by twistd on this machine's loopback, with `--firewall=none`."""

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
    """A context manager: a service with these options, on free ports, which is killed at the end.

    `before` are twistd's own options; `env` is added to the environment.
    """
    process = subprocess.Popen(
        [sys.executable, TWISTD, "-n", "--pidfile=", *before, "envelope",
         "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--status=127.0.0.1:0",
         "--firewall=none", *options],
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
    """Read the log until it names a port, and return that."""
    return int(service.until(rf"{what} .*port=(\d+)")[1])
