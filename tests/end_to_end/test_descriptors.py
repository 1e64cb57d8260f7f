"""The real service when it runs out of descriptors."""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from tests.end_to_end.serviceprocess import ServiceProcess, describe, until_end
from tests.support.frontfakes import HELLO, close_frame

_FEW = 12


def allow(running: ServiceProcess, number: int) -> None:
    """Limit the running service to descriptors below `number`."""
    hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (number, hard))


def test_without_descriptors_it_keeps_accepting_and_ends_no_session(tmp_path: Path) -> None:
    """Connections without a session are dropped for a good client and for the operator."""
    with ExitStack() as stack:
        running = stack.enter_context(
            ServiceProcess(tmp_path, "--max-clients=2", listen=("127.0.0.1:0",), tls=False)
        )
        hello = HELLO.replace(b"access_token=good", b"access_token=" + running.token())
        held = stack.enter_context(closing(running.open_stream()))
        held.sendall(hello)
        assert b" 101 " in held.recv(20)
        used = max(int(link.name) for link in Path(f"/proc/{running.pid}/fd").iterdir())
        before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)[0]
        allow(running, used + _FEW)
        idle = [stack.enter_context(closing(running.connect())) for _ in range(10 * _FEW)]
        assert describe(running.exchange(hello + close_frame(1000)))["status"] == 101
        assert running.dropped()["descriptors"] > 0
        assert running.connections()["session"] == 1
        allow(running, 0)
        idle += [stack.enter_context(closing(running.connect())) for _ in range(_FEW)]
        allow(running, before)
        assert describe(running.exchange(hello + close_frame(1000)))["status"] == 101
        held.sendall(close_frame(1000))
        assert until_end(held).endswith(b"\x88\x02\x03\xe8")
        for stream in idle:
            stream.close()
        running.wait_until_idle()
        log = running.stop()
    lines = sum("no connection can be accepted now" in line for line in log)
    assert 1 <= lines <= 2, "more than one line a minute for each of two ports"
    assert not any("Traceback" in line for line in log)


def test_a_start_that_needs_more_descriptors_than_allowed_is_refused(tmp_path: Path) -> None:
    """The one line says what to do."""
    program = (
        "import ctypes, os, resource, sys\n"
        "ctypes.CDLL(None).prctl(24, 24, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_SYS_RESOURCE\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    twistd = Path(sys.executable).with_name("twistd")
    done = subprocess.run(
        [sys.executable, "-c", program, sys.executable, twistd, "-n", "--pidfile=", "envelope",
         "--token-required=false", "--max-clients=400000", "--admin=none", "--status=none",
         "--listen=127.0.0.1:0"],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--max-clients" in done.stderr
