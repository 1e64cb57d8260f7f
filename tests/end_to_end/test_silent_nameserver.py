"""The name server does not answer: what a start and a stop do then."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.end_to_end.harness import BARE_PYTHON, Lines

pytestmark = pytest.mark.kernel

# Takes queries and never answers. Without it, an ICMP error would end a look-up at once.
SILENT = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
print("up", flush=True)
while True:
    s.recv(512)
    print("asked", flush=True)
"""


@pytest.fixture
def silence(rig, tmp_path):
    """A name server on the host, which a look-up waits 25 s for; `until("asked")`: for a query."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:5\n")
    rig.lab.host.run(
        ["mount", "--bind", tmp_path / "resolv.conf", "/etc/resolv.conf"], check=True
    )
    server = rig.keep(Lines(rig.lab.host.popen(
        [*BARE_PYTHON, "-c", SILENT], stdout=subprocess.PIPE, text=True
    )))
    server.until("up")
    return server


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_a_stop_does_not_wait_for_the_name_server(rig, silence) -> None:
    """Neither during a fetch, nor after one that has failed while its look-up still waits."""
    before = rig.saved()
    options = [*rig.options(), "--verify-jwks-url=https://keys.example/jwks.json"]
    for waits_for in ("fetching the keys", "ready$"):
        service = rig.twistd(*options)
        service.until(waits_for)
        silence.until("asked")
        asked = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - asked < 2
        assert rig.saved() == before


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_a_stop_ends_a_start_that_looks_up_where_to_listen(rig, silence, option: str) -> None:
    """Nothing has been changed by then, and the exit status is 0."""
    before = rig.saved()
    service = rig.twistd(*rig.options(f"{option}=door.example:8881"))
    silence.until("asked")
    asked = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - asked < 2
    service.until("the start was cut short: cannot listen on door.example:8881")
    assert rig.saved() == before
