"""The commands in examples/ work as printed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from envelope.lab import Host, NetLab
from tests.end_to_end.harness import PATIENCE, Lines
from tests.support.environment import need
from tests.support.pages import ROOT, all_of
from tests.support.polling import wait_until

BLOCKS = {name: all_of(f"examples/{name}/README.md", "sh")
          for name in ("measurement", "iperf3", "issuer")}
# What an activated virtual environment does.
ACTIVATE = f"PATH={Path(sys.executable).parent}:$PATH\n"


class Example:
    """A copy of an example's folder, and the blocks of commands in its README."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder / name
        shutil.copytree(ROOT / "examples" / name, self.folder)
        self.blocks = BLOCKS[name]
        self._started: list[Lines] = []

    def _arguments(self, more: dict[str, str]) -> dict[str, Any]:
        return {"cwd": self.folder, "text": True, "stdout": subprocess.PIPE,
                "stderr": subprocess.STDOUT, "env": {"PATH": os.environ["PATH"], **more}}

    def run(self, host: Host, command: str, **more: str) -> tuple[int, str]:
        """Run commands to their end: the status, and everything that they printed."""
        done = host.run(
            ["sh", "-ec", ACTIVATE + command], timeout=PATIENCE, **self._arguments(more)
        )
        return done.returncode, done.stdout

    def start(self, host: Host, command: str, **more: str) -> Lines:
        """Start commands, the last of which goes on."""
        started = Lines(host.popen(["sh", "-ec", ACTIVATE + command], process_group=0, bufsize=1,
                                   **self._arguments(more)))
        self._started.append(started)
        return started

    def close(self) -> None:
        """Kill what was started, with what it has started in the background."""
        for each in self._started:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()
            each.reader.join(PATIENCE)
            assert each.process.stdout is not None
            each.process.stdout.close()


def await_port(host: Host, port: int) -> None:
    """Wait until a program on the host listens, of which the examples' programs tell nothing."""
    def listens() -> bool:
        tables = (Path(f"/proc/{host.pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
        # proc_pid_net(5): the local address, the remote one, and the state, all in hexadecimal.
        return any(re.search(rf":{port:04X} \S+ 0A ", table) for table in tables)

    wait_until(listens, f"nothing listens on port {port}")


@pytest.fixture
def example(lab: NetLab, tmp_path: Path) -> Iterator[Callable[[str], Example]]:
    """Makes an example, which is closed at the end."""
    made: list[Example] = []

    def make(name: str) -> Example:
        made.append(Example(name, tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.kernel
@pytest.mark.parametrize(("name", "port", "alone", "shown"), [
    ("measurement", 5000, "SERVICE_ADDRESS=203.0.113.1 python3 client.py",
     r"\A\d+ Mbit/s from 203\.0\.113\.1\n\Z"),
    ("iperf3", 5201, "iperf3 --client 203.0.113.1 --time 1", r"(?s)\breceiver\b.*\breceiver\b"),
], ids=["measurement", "iperf3"])
def test_a_server_behind_an_envelope(
    lab: NetLab, example: Callable[[str], Example], name: str, port: int, alone: str, shown: str
) -> None:
    """A client alone is refused, before and after its measurement inside an envelope."""
    for tool in ("openssl", *(["iperf3"] if name == "iperf3" else [])):
        if shutil.which(tool) is None:
            need(f"{tool} is not installed")
    this = example(name)
    prepare, serve, sign, measure = this.blocks
    host, client = lab.host, lab.client()
    assert this.run(host, prepare)[0] == 0
    this.start(host, serve).until(r"\bready$")
    await_port(host, port)
    status, url = this.run(host, sign)
    assert status == 0

    def refused() -> bool:
        status, said = this.run(client, alone)
        return status != 0 and "refused" in said

    assert refused()
    status, said = this.run(client, measure, URL=url.strip())
    assert (status, bool(re.search(shown, said))) == (0, True), said
    assert refused()


def test_the_issuer_names_the_machines_with_room(
    lab: NetLab, example: Callable[[str], Example]
) -> None:
    this = example("issuer")
    serve, client = this.blocks
    host = lab.host
    this.start(host, serve).until(r"\bready$")
    await_port(host, 8000)
    first = this.start(host, client, HOLD="60")
    assert first.next() == "let in at 127.0.0.1"
    assert this.run(host, client) == (
        125, "envelope exec: Locate: No machine has room (503)\n")
    os.killpg(first.process.pid, signal.SIGTERM)
    while first.next() is not None:
        pass
    assert this.run(host, client) == (0, "let in at 127.0.0.1\n")
