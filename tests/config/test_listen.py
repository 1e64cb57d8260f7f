"""Listeners: their ports are those that Twisted opens for the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from envelope.config.listen import parse_listen


def port_of_twisted(description: str) -> int:
    """The TCP port that Twisted listens on for an endpoint description; it may raise anything."""
    reactor = MemoryReactorClock()
    serverFromString(reactor, description).listen(Factory())
    ((port, *_),) = reactor.tcpServers
    return int(port)


@pytest.mark.parametrize("text", [
    "tcp:8880", "tcp:port=8880", "tcp:8880:interface=10.0.0.1", "tcp:interface=127.0.0.1:port=8880",
    r"tcp6:port=8880:interface=\:\:1", r"tcp:port=88\80", "tcp:8880:backlog=5",
    r"tcp:interface=a\=b\\:port=8880", "tcp:interface=port=1:port=8880",
])
@pytest.mark.parametrize("prefix", ["", "haproxy:"])
def test_an_endpoints_port_is_the_one_that_twisted_opens(prefix: str, text: str) -> None:
    assert port_of_twisted(text) == 8880
    spec = parse_listen(prefix + text)
    assert (spec.port, spec.endpoint, spec.proxied) == (8880, text, bool(prefix))


PRINTABLE = st.characters(exclude_categories=["C", "Z"])


@given(
    st.sampled_from(["tcp", "tcp6"]), st.integers(0, 65535), st.booleans(),
    st.dictionaries(
        st.sampled_from(["interface"]), st.text(PRINTABLE).map(quoteStringArgument)
    ),
    st.booleans(),
)
def test_quoted_arguments_in_any_order(
    kind: str, port: int, positional: bool, named: dict[str, str], last: bool
) -> None:
    others = [f"{name}={value}" for name, value in named.items()]
    ours = [str(port)] if positional else [f"port={port}"]
    text = ":".join([kind, *(others + ours if last else ours + others)])
    assert parse_listen(text).port == port_of_twisted(text) == port


@given(st.text(st.sampled_from("port=:\\018interface"), max_size=30))
def test_a_port_that_both_read_is_the_same(rest: str) -> None:
    """Twisted and this parser may each refuse a text; they never read different ports."""
    text = f"tcp:{rest}"
    try:
        ours, theirs = parse_listen(text).port, port_of_twisted(text)
    except Exception:  # Twisted raises whatever its parsers run into
        return
    assert ours == theirs


@pytest.mark.parametrize(("text", "host", "port"), [
    (":8880", "", 8880), ("[::1]:8880", "::1", 8880), ("192.0.2.1:0", "192.0.2.1", 0),
    ("host.example:65535", "host.example", 65535),
])
def test_host_and_port(text: str, host: str, port: int) -> None:
    spec = parse_listen(text)
    assert (spec.host, spec.port, spec.endpoint, spec.proxied) == (host, port, "", False)
    assert str(spec) == text


@pytest.mark.parametrize("text", [
    "systemd:domain=INET6:index=0", "unix:/run/socket", r"unix:/run/a\:b:mode=660",
    "tcp:interface=x",
])
def test_a_port_that_only_the_open_socket_tells_is_none(text: str) -> None:
    assert parse_listen(text).port is None


@pytest.mark.parametrize("text", [
    "", "8880", ":65536", "[::g]:1", "tcp:65536", "tcp:port=-1", "tcp:port=",
    "haproxy:haproxy:tcp:1", ":1\n", "tcp:1\x00", "ssl:port=21",
    "tcp:8880\\", "unix:/run/a\\\\\\",
])
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$"):
        parse_listen(text)
