"""The listen options: which are valid, and which sockets they open."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from envelope.addresses import PortRange, client_address
from envelope.config.listen import parse_listen
from envelope.credentials.tls import ServerTLS
from envelope.front import listeners
from envelope.front.listeners import (
    BACKLOG,
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_PROBES,
    USER_TIMEOUT,
    ListenError,
    listen,
    service_ports,
)
from tests.credentials.test_tls import Pair


class Hosts(Factory):
    """Fires `arrived` with the transport of the first client."""

    def __init__(self) -> None:
        self.arrived: Deferred[Any] = Deferred()

    def buildProtocol(self, addr: IAddress) -> Protocol:
        return _Guest(self.arrived)


class _Guest(Protocol):
    def __init__(self, arrived: Deferred[Any]) -> None:
        self._arrived = arrived
        self.left: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        if not self._arrived.called:
            self._arrived.callback(self)

    def connectionLost(self, reason: object = None) -> None:
        self.left.callback(None)


Open = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def opened(hosts: Hosts) -> Iterator[Open]:
    """Listens on a text with `hosts`; shuts everything afterwards."""
    ports: list[Any] = []

    async def open_at(text: str, tls: Any = None) -> list[Any]:
        new = await listen(reactor, parse_listen(text), hosts, tls)
        ports.extend(new)
        return list(new)

    yield open_at
    for port in ports:
        pytest_twisted.blockon(port.stopListening())


async def welcome(hosts: Hosts, port: Any, place: tuple[Any, ...]) -> Any:
    """Let one client in and hang up; its protocol."""
    port.startReading()
    with socket.create_connection(place, timeout=5):
        guest = await hosts.arrived
    await guest.left
    return guest


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":8880", "", 8880),
        (":0", "", 0),
        ("192.0.2.1:443", "192.0.2.1", 443),
        ("mlab1.lga03.example:4443", "mlab1.lga03.example", 4443),
        ("[2001:db8::1]:8880", "2001:db8::1", 8880),
        ("[::]:8880", "::", 8880),
        ("tcp:8880", None, 8880),
        ("tcp:port=8880:interface=127.0.0.1", None, 8880),
        ("tcp6:8880:interface=\\:\\:1", None, 8880),
        ("haproxy:tcp:8880", None, 8880),
        ("systemd:domain=INET:index=0", None, None),
        ("unix:/run/envelope.sock", None, None),
    ],
)
def test_valid_listen_options(text: str, host: str | None, port: int | None) -> None:
    spec = parse_listen(text)
    assert (spec.text, spec.host, spec.port) == (text, host, port)


@pytest.mark.parametrize(
    "text",
    ["", "8880", "localhost", ":65536", ":-1", ":x", "2001:db8::1:80", "[]:80", "[1.2.3.4]:80",
     "tcp:65536", "tcp:http", "ssl:port=443", "a b:80", ":80 ", "::80", "[::1]", "[::1]80"],
)
def test_invalid_listen_options(text: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        parse_listen(text)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        port = parse_listen(text).port
    except ValueError as error:
        port, text = None, str(error)
    assert port is None or 0 <= port <= 65535
    assert "\n" not in text


def test_only_unix_sockets_hide_their_clients() -> None:
    assert not parse_listen("unix:/run/x").clients_have_addresses
    assert not parse_listen("systemd:domain=UNIX:index=0").clients_have_addresses
    assert parse_listen("systemd:domain=INET6:index=0").clients_have_addresses
    assert parse_listen("haproxy:unix:/run/x").clients_have_addresses
    assert parse_listen(":1").clients_have_addresses


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_a_bare_port_serves_both_families(opened: Open, hosts: Hosts, address: str) -> None:
    (port,) = await opened(":0")
    number = port.getHost().port
    guest = await welcome(hosts, port, (address, number))
    assert client_address(guest.transport.getPeer()) == ip_address(address)


@pytest_twisted.ensureDeferred
async def test_an_address_written_out_is_of_its_family_alone(opened: Open, hosts: Hosts) -> None:
    """So `[::]` and `0.0.0.0` share a port."""
    (six,) = await opened("[::]:0")
    number = six.getHost().port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number), timeout=5)
    (four,) = await opened(f"0.0.0.0:{number}")
    guest = await welcome(hosts, four, ("127.0.0.1", number))
    assert client_address(guest.transport.getPeer()) == ip_address("127.0.0.1")
    with socket.create_connection(("::1", number), timeout=5):
        pass


@pytest_twisted.ensureDeferred
async def test_without_ipv6_a_bare_port_serves_ipv4(
    opened: Open, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_has_ipv6", lambda: False)
    (port,) = await opened(":0")
    assert isinstance(port.getHost(), IPv4Address)
    await welcome(hosts, port, ("127.0.0.1", port.getHost().port))


def test_a_kernel_without_ipv6_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(family: int, kind: int) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    assert listeners._has_ipv6()
    monkeypatch.setattr(listeners.socket, "socket", no_socket)
    assert not listeners._has_ipv6()


@pytest_twisted.ensureDeferred
async def test_no_connection_is_accepted_before_start_accepting(opened: Open, hosts: Hosts) -> None:
    """The kernel may complete the connection; the service does not see it yet."""
    (port,) = await opened("127.0.0.1:0")
    with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=5):
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, reactor.callLater, 0, turn.callback, None)  # type: ignore[attr-defined]
        await turn
        assert not hosts.arrived.called
        port.startReading()
        guest = await hosts.arrived
    await guest.left


@pytest.mark.parametrize("text", [":0", "127.0.0.1:0", "tcp:0:interface=127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_accepted_sockets_detect_dead_peers(opened: Open, hosts: Hosts, text: str) -> None:
    """The options are set once, on the listening socket."""
    (port,) = await opened(text)
    port.startReading()
    with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=5):
        guest = await hosts.arrived
        accepted = guest.transport.socket

        def tcp(option: int) -> int:
            return int(accepted.getsockopt(socket.IPPROTO_TCP, option))

        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert tcp(socket.TCP_NODELAY) == 1
        assert tcp(socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE
        assert tcp(socket.TCP_KEEPINTVL) == KEEPALIVE_INTERVAL
        assert tcp(socket.TCP_KEEPCNT) == KEEPALIVE_PROBES
        assert tcp(socket.TCP_USER_TIMEOUT) == USER_TIMEOUT * 1000
    await guest.left
    assert KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES <= 30
    assert BACKLOG >= 1024


@pytest_twisted.ensureDeferred
async def test_a_host_name_means_all_its_addresses(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free port that was picked for the first is the port of all."""

    def two_addresses(*_: object, **__: object) -> list[tuple[Any, ...]]:
        kind = (socket.SOCK_STREAM, 6, "")
        return [
            (socket.AF_INET6, *kind, ("::1", 0, 0, 0)),
            (socket.AF_INET, *kind, ("127.0.0.1", 0)),
        ]

    monkeypatch.setattr(listeners.socket, "getaddrinfo", two_addresses)
    ports = await opened("both.example:0")
    assert [port.getHost().host for port in ports] == ["::1", "127.0.0.1"]
    assert len({port.getHost().port for port in ports}) == 1


async def refusal(text: str, hosts: Hosts) -> str:
    with pytest.raises(ListenError) as caught:
        await listen(reactor, parse_listen(text), hosts, None)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("form", [":{}", "127.0.0.1:{}", "tcp:{}:interface=127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_a_port_in_use_is_one_line(opened: Open, hosts: Hosts, form: str) -> None:
    number = (await opened(":0"))[0].getHost().port
    text = form.format(number)
    assert await refusal(text, hosts) == f"cannot listen on {text}: address already in use"


@pytest_twisted.ensureDeferred
async def test_a_failure_closes_the_sockets_that_were_open(
    opened: Open, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (taken,) = await opened("127.0.0.1:0")
    number = taken.getHost().port
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", number, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number)),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(listeners.socket, "getaddrinfo", lambda *_, **__: found)
        assert "address already in use" in await refusal(f"both.example:{number}", hosts)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", number), timeout=5)


@pytest_twisted.ensureDeferred
async def test_out_of_descriptors_is_one_line_and_leaves_nothing(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        """Adopts one socket, then has no descriptor left."""

        adopted: Any = None

        def __getattr__(self, name: str) -> Any:
            return getattr(reactor, name)

        def adoptStreamPort(self, *arguments: Any) -> Any:
            if self.adopted is not None:
                raise OSError(24, "Too many open files")
            self.adopted = reactor.adoptStreamPort(*arguments)  # type: ignore[attr-defined]
            return self.adopted

    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(listeners.socket, "getaddrinfo", lambda *_, **__: found)
    exhausted = Exhausted()
    with pytest.raises(ListenError, match=r"both\.example:0: too many open files"):
        await listen(exhausted, parse_listen("both.example:0"), hosts, None)
    assert not exhausted.adopted.connected


@pytest.mark.parametrize(("text", "part"), [
    ("tcp:80:nonsense=1", "nonsense"), ("haproxy:tcp", "port"), ("tcp:0:backlog=x", "x"),
])
@pytest_twisted.ensureDeferred
async def test_the_malformed_part_of_an_endpoint_is_named(
    hosts: Hosts, text: str, part: str
) -> None:
    said = f"cannot listen on {text}: '{part}' is missing or makes no sense there"
    assert await refusal(text, hosts) == said


@pytest.mark.parametrize(
    "text",
    ["tcp:80:nonsense=1", "tcp6:0:backlog=x", "systemd:domain=INET:index=7",
     "unix:/nowhere/at/all.sock", "no-such-host.invalid:80", "203.0.113.99:0"],
)
@pytest_twisted.ensureDeferred
async def test_a_failure_to_listen_is_one_line(hosts: Hosts, text: str) -> None:
    assert (await refusal(text, hosts)).startswith(f"cannot listen on {text}: ")


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_has_no_client_address(
    opened: Open, hosts: Hosts, tmp_path: Path
) -> None:
    path = tmp_path / "door"
    (port,) = await opened(f"unix:{path}")
    assert service_ports([port]) == ()
    port.startReading()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        guest = await hosts.arrived
    await guest.left
    assert client_address(guest.transport.getPeer()) is None


@pytest_twisted.ensureDeferred
async def test_a_proxy_header_names_the_client(opened: Open, hosts: Hosts) -> None:
    (port,) = await opened("haproxy:tcp:0:interface=127.0.0.1")
    port.startReading()
    with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=5) as peer:
        guest = await hosts.arrived
        heard: Deferred[bytes] = Deferred()
        guest.dataReceived = heard.callback
        peer.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8880\r\nGET /")
        assert await heard == b"GET /"
        assert client_address(guest.transport.getPeer()) == ip_address("203.0.113.7")
    await guest.left


@pytest.mark.parametrize("text", ["127.0.0.1:0", "haproxy:tcp:0:interface=127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_tls_runs_above_the_proxy(
    opened: Open, hosts: Hosts, tmp_path: Path, text: str
) -> None:
    pair = Pair(tmp_path)
    pair.write("door.example")
    (port,) = await opened(text, ServerTLS.load(pair.cert, pair.key))
    port.startReading()
    number = port.getHost().port

    def speak() -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", number), timeout=5) as plain:
            if text.startswith("haproxy"):
                plain.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8880\r\n")
            with context.wrap_socket(plain) as private:
                return private.version()

    assert await deferToThread(speak) == "TLSv1.3"
    await (await hosts.arrived).left


@pytest_twisted.ensureDeferred
async def test_the_service_knows_its_own_ports(opened: Open) -> None:
    first, second = (await opened(":0"))[0], (await opened("127.0.0.1:0"))[0]
    numbers = sorted([first.getHost().port, second.getHost().port])
    assert service_ports([second, first, first]) == tuple(
        PortRange("tcp", number, number) for number in numbers
    )


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8::1", 1), "2001:db8::1"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::1"),
    ],
)
def test_clients_have_the_address_that_the_kernel_sees(peer: object, address: str) -> None:
    assert client_address(peer) == ip_address(address)


@pytest.mark.parametrize(
    "peer",
    [UNIXAddress("/run/x"), HostnameAddress(b"h", 1), IPv4Address("TCP", "a name", 1), None],
)
def test_some_peers_have_no_address(peer: object) -> None:
    assert client_address(peer) is None
