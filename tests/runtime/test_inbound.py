"""What connects to this host: the login of a parent process, and connections that came in."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from envelope.runtime.inbound import inbound_connections, read_tables, ssh_connection

LOGIN = "203.0.113.9 50000 192.0.2.1 22"


class Processes:
    """A /proc with parents of this process, the nearest first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._last = os.getppid()
        self._add_network("self", "net:[1]")

    def add(self, environ: str | None, network: str | None = "net:[1]") -> None:
        """One parent further up; None for what cannot be read."""
        folder = self.root / str(self._last)
        self._last += 1
        self._add_network(folder.name, network)
        (folder / "status").write_text(f"Name:\tsh\nPPid:\t{self._last}\nUid:\t0\n")
        if environ is not None:
            (folder / "environ").write_bytes(environ.replace(" ; ", "\0").encode())

    def _add_network(self, name: str, network: str | None) -> None:
        (self.root / name / "ns").mkdir(parents=True)
        if network is not None:
            (self.root / name / "ns" / "net").symlink_to(network)


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def test_our_own_environment_comes_first(processes: Processes) -> None:
    """An empty value is the operator's word that there is no login to keep."""
    processes.add(f"SSH_CONNECTION={LOGIN}")
    assert ssh_connection({"SSH_CONNECTION": "here"}, processes.root) == "here"
    assert ssh_connection({"SSH_CONNECTION": ""}, processes.root) == ""
    assert ssh_connection({}, processes.root) == LOGIN


def test_the_nearest_parent_that_has_it_counts(processes: Processes) -> None:
    """As sudo's parent does; those that cannot be read, or are in another network, are skipped."""
    processes.add("A=1 ; XSSH_CONNECTION=no ; SSH_CONNECTION=")
    processes.add(None)
    processes.add("SSH_CONNECTION=another", network="net:[2]")
    processes.add("SSH_CONNECTION=hidden", network=None)
    processes.add(f"A=1 ; SSH_CONNECTION={LOGIN} ; B=2")
    processes.add("SSH_CONNECTION=further")
    assert ssh_connection({}, processes.root) == LOGIN


def test_there_may_be_none(processes: Processes, tmp_path: Path) -> None:
    processes.add("A=1")
    assert ssh_connection({}, processes.root) is None
    assert ssh_connection({}, tmp_path / "nothing") is None


# /proc/net/tcp of a little-endian machine: 192.0.2.1:22 and 0.0.0.0:80 listen.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 010200C0:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   2: 010200C0:0016 097100CB:C350 01 00000000:00000000 00:00000000 00000000     0
   3: 010200C0:0050 097100CB:C351 01 00000000:00000000 00:00000000 00000000     0
   4: 010200C0:0050 097100CB:C352 06 00000000:00000000 00:00000000 00000000     0
   5: 020200C0:0016 097100CB:C353 01 00000000:00000000 00:00000000 00000000     0
   6: 010200C0:C350 097100CB:01BB 01 00000000:00000000 00:00000000 00000000     0
"""


def test_a_connection_came_in_if_something_listens_where_it_ends() -> None:
    """Not in TIME_WAIT, not to an address where nothing listens, not one of our own."""
    home = ip_address("192.0.2.1")
    assert inbound_connections([TCP]) == [(home, 22), (home, 80)]


def test_real_tables_of_both_families() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both,
        socket.create_connection(("127.0.0.1", both.getsockname()[1])),
        socket.create_connection(("::1", both.getsockname()[1])),
    ):
        port = both.getsockname()[1]
        found = [each for each in inbound_connections(read_tables()) if each[1] == port]
    assert sorted(str(address) for address, _ in found) == ["127.0.0.1", "::1"]


def test_tables_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    assert read_tables(tmp_path) == []
