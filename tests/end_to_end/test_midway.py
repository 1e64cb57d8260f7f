"""Connections that connection tracking meets midway or forgets: `cut` holds, packet by packet.

Where the service may not write settings, as in a container and with the shipped unit, sockets are
destroyed; where it may, both ways are used.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from envelope.lab import Host
from tests.end_to_end.harness import BARE_PYTHON, HERE, Lines, Rig, every_kind
from tests.end_to_end.test_flows import enter, leave
from tests.support.polling import wait_until

pytestmark = pytest.mark.kernel

TRACKING = "net.netfilter.nf_conntrack_"
# The service's /proc/sys cannot be written.
FIXED = ("unshare", "-m", "sh", "-c", "mount --bind /proc/sys /proc/sys && "
         'mount -o remount,bind,ro /proc/sys && exec "$@"', "sh")
# What `conntrack -F` does.
FLUSH = """
import socket, struct
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
    kernel.send(struct.pack("=IHHII", 20, 0x102, 5, 1, 0) + bytes(4))
    assert struct.unpack_from("=i", kernel.recv(4096), 16) == (0,)
"""
ways = pytest.mark.parametrize("by", [(), FIXED], ids=["set", "fixed"])


class End(Lines):
    """One end of connections: see `midway`."""

    def __init__(self, rig: Rig, host: Host, *words: object) -> None:
        super().__init__(host.popen(
            [*BARE_PYTHON, HERE / "midway.py", *map(str, words)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1))
        rig.keep(self)
        assert self.next() == "up"

    def tell(self, word: str) -> int:
        """Give it a word, and return its answer."""
        self.process.stdin.write(word + "\n")
        return int(self.next())


def is_loose(rig: Rig) -> bool:
    """Whether the host's tracking picks up connections midway."""
    shown = rig.lab.host.run(["sysctl", "-n", f"{TRACKING}tcp_loose"], check=True).stdout
    return shown.strip() != "0"


def tracked(rig: Rig) -> list[str]:
    """The host's tracked connections of `midway`, the side that began them first."""
    shown = rig.lab.host.run(["cat", "/proc/net/nf_conntrack"], check=True).stdout
    return [line for line in shown.splitlines() if "port=9400 " in line]


def has_forgotten(rig: Rig) -> bool:
    """Whether tracking has no flow left that it keeps for seconds alone, as it is set to."""
    # The fifth word is how many seconds it still keeps the flow.
    return all(int(line.split()[4]) > 10 for line in tracked(rig))


def until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what arrives at a program, or for what tracking forgets."""
    wait_until(is_so, "it never came", seconds)


def arrives_nothing(server: End, client: End) -> bool:
    """Whether nothing of what a client sends comes to its server, though the server sends too.

    Packets go out at intervals, as the retries of a client would. Nothing tells of one that was
    refused, so the interval is time.
    """
    before = server.tell("count")
    for _ in range(3):
        server.tell("send")
        client.tell("send")
        time.sleep(0.1)
    return server.tell("count") == before


def lives_on(own: list[tuple[End, End]], count: int) -> None:
    """The host's own connections do, in both directions, the far end sending first."""
    for far, near in own:
        assert far.tell("send") == 1
        until(lambda near=near: near.tell("count") == count)
        assert near.tell("send") == 1
        until(lambda far=far: far.tell("count") == count)


@every_kind
@ways
def test_a_client_that_makes_tracking_forget_its_connection_is_cut(rig, by) -> None:
    """A reset that the server does not accept; then the server's next segment begins a flow."""
    host, stranger = rig.lab.host, rig.lab.client()
    server = End(rig, host, "serve")
    service = rig.start("--max-clients=3", by=by)
    host.run(["sysctl", "-w", f"{TRACKING}tcp_timeout_close=1"], check=True)
    said = "cannot be set: Read-only file system" if by else "tcp_loose is 0"
    assert any(said in line for line in service.seen)
    for to in (host.address4, host.address6):
        client = enter(rig, to)
        peer = End(rig, stranger, "hold", to)
        assert peer.tell("send") == 1
        assert peer.tell("confuse") == 1
        until(lambda: not tracked(rig))
        count = server.tell("count")
        assert server.tell("send") == 1
        assert peer.tell("send") == 1
        until(lambda count=count: server.tell("count") == count + 10)
        assert bool(tracked(rig)) is bool(by), "the server's segment counts, where it has to"
        leave(client)
        assert arrives_nothing(server, peer)
        assert server.tell("send") == 0, "the server has been told"
    assert service.stop() == 0


@every_kind
@ways
def test_connections_of_before_the_start_and_of_an_earlier_life(rig, by) -> None:
    """A stranger's end, and the host's own live on, whoever sends first.

    So it is where nothing was tracked before, and after `kill -9`, also when the server's listener
    has closed long ago.
    """
    host, stranger = rig.lab.host, rig.lab.client()
    own: list[tuple[End, End]] = []
    strangers: list[tuple[End, End]] = []
    for to in (stranger.address4, stranger.address6):
        own.append((End(rig, stranger, "serve", "once"), End(rig, host, "hold", to)))
    for to in (host.address4, host.address6):
        strangers.append((End(rig, host, "serve", "once"), End(rig, stranger, "hold", to)))
    service = rig.start("--max-clients=3", by=by)
    assert all(arrives_nothing(server, client) for server, client in strangers)
    lives_on(own, 10)
    server = End(rig, host, "serve", "once")
    client = enter(rig, host.address4)
    peer = End(rig, stranger, "hold", host.address4)
    assert peer.tell("send") == 1
    until(lambda: server.tell("count") == 10)
    service.stop(signal.SIGKILL)
    assert is_loose(rig) is bool(by)
    assert client.event()["event"] == "end"
    service = rig.start("--max-clients=3", by=by)
    assert arrives_nothing(server, peer)
    lives_on(own, 20)
    assert service.stop() == 0
    assert is_loose(rig)


def test_after_a_flush_the_hosts_own_connections_are_made_known_again(rig) -> None:
    """Within ten seconds; those of clients are cut with their grants as before."""
    host, stranger = rig.lab.host, rig.lab.client()
    server = End(rig, host, "serve")
    service = rig.start("--max-clients=3")
    own = [(End(rig, stranger, "serve", "once"), End(rig, host, "hold", stranger.address4))]
    client, peer = enter(rig, host.address4), End(rig, stranger, "hold", host.address4)
    assert peer.tell("send") == 1
    until(lambda: server.tell("count") == 10)
    host.run([*BARE_PYTHON, "-c", FLUSH], check=True)
    assert not tracked(rig)
    until(lambda: bool(tracked(rig)), 30)
    lives_on(own, 10)
    leave(client)
    assert arrives_nothing(server, peer)
    assert service.stop() == 0


@every_kind
def test_any_number_of_the_hosts_own_connections_lives_on(rig) -> None:
    """Opened before anything was tracked, and silent themselves from then on."""
    host, stranger = rig.lab.host, rig.lab.client()
    server = End(rig, stranger, "serve")
    own = End(rig, host, "hold", stranger.address4, 700)
    service = rig.start()
    assert server.tell("send") == 700
    until(lambda: own.tell("count") == 7000)
    assert service.stop() == 0


@every_kind
@pytest.mark.parametrize("first", [False, True], ids=["after", "before"])
def test_a_udp_server_that_sends_first_after_silence_opens_nothing(rig, first) -> None:
    """Whether it does so before or after the grant's end; the host's own flows live on."""
    host, stranger = rig.lab.host, rig.lab.client()
    service = rig.start("--max-clients=3")
    server, far = End(rig, host, "serve-udp"), End(rig, stranger, "serve-udp")
    for name in ("udp_timeout", "udp_timeout_stream"):
        host.run(["sysctl", "-w", f"{TRACKING}{name}=1"], check=True)
    for to, there in ((host.address4, stranger.address4), (host.address6, stranger.address6)):
        own = End(rig, host, "hold-udp", there)
        client, peer = enter(rig, to), End(rig, stranger, "hold-udp", to)
        count = server.tell("count")
        peer.tell("send")
        until(lambda count=count: server.tell("count") == count + 10)
        if first:
            until(lambda: has_forgotten(rig))
            server.tell("send")
        own.tell("send")
        leave(client)
        assert arrives_nothing(server, peer)
        until(lambda: has_forgotten(rig))
        assert arrives_nothing(server, peer)
        own.tell("send")
        far.tell("send")
        until(lambda own=own: own.tell("count") > 0)
    assert service.stop() == 0
