"""The programs on docs/clients.md work as printed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.serviceprocess import ServiceProcess
from tests.support.pages import ROOT, all_of

PROGRAMS = all_of("docs/clients.md", "python")
BEFORE = """
import sys
url = sys.argv[1]
def start_measuring(address):
    print("measuring", address)
"""
TWISTED = """
from twisted.internet.defer import Deferred
from twisted.internet.task import react
react(lambda reactor: Deferred.fromCoroutine(measure(reactor, url)))
"""
ASYNCIO = """
import asyncio
async def measure(address):
    await asyncio.sleep(0.05)
    start_measuring(address)
"""


@pytest.mark.process
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_documented_program_measures(tmp_path: Path, asynchronous: bool) -> None:
    (program,) = [each for each in PROGRAMS if ("asyncio" in each) == asynchronous]
    if asynchronous:
        first, installed, rest = program.partition("asyncioreactor.install()\n")
        program = BEFORE + first + installed + ASYNCIO + rest
    else:
        program = BEFORE + program + TWISTED
    with ServiceProcess(tmp_path, "--timeout=1s", listen=("127.0.0.1:0",), tls=False) as service:
        token = service.token(exp=time.time() + 2).decode()
        url = f"ws://127.0.0.1:{service.ports[0]}/v0/envelope/access?access_token={token}"
        done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True,
                              timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "measuring 127.0.0.1\n", "")
