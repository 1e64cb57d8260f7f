"""A log that nobody reads, at a service that holds rules: clients and a stop notice nothing."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.end_to_end.harness import PATIENCE, Rig
from tests.end_to_end.manyclients import ManyClients
from tests.end_to_end.test_operation import get

pytestmark = pytest.mark.kernel

VISITS = 400
METRIC = re.compile(r"^envelope_log_dropped_total (\S+)$", re.MULTILINE)


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_sessions_and_the_stop_go_on_while_nobody_reads_the_log(rig: Rig) -> None:
    """400 visits, 800 lines, into a pipe of 4 kB."""
    before = rig.saved()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    twistd = Path(sys.executable).with_name("twistd")
    process = rig.lab.host.popen(
        [sys.executable, twistd, "-n", "--pidfile=", "envelope", *rig.options("--max-clients=9")],
        stdout=writing, stderr=writing, cwd=rig.folder)
    os.close(writing)
    crowd = None
    try:
        seen = b""
        while not seen.endswith(b"ready\n"):
            seen += os.read(reading, 1)
        crowd = ManyClients(rig, rig.token(1000), 4, stay=(0.0, 0.01), tls=True, addresses=4)
        visits, happened = 0, {}
        while visits < VISITS:
            crowd.tell("go")
            crowd.heard("crowded")
            crowd.tell("pause")
            happened = crowd.heard("pause")
            visits = happened["status 101"]
        assert happened == {"status 101": visits, "closed 1000": visits}
        assert get(rig, "http://127.0.0.1:9990/livez")[0] == 200
        metrics = get(rig, "http://127.0.0.1:9990/metrics")[1]
        lines = METRIC.search(metrics)
        assert lines is not None
        assert rig.grants() == ""
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert rig.saved() == before
    finally:
        os.close(reading)
        process.kill()
        process.wait()
        if crowd is not None:
            crowd.close()
