"""Telling the host's own connections from those it serves."""

from pathlib import Path

from envelope.config import Config
from envelope.firewall.flows import Flow, carried_flows, own_flows
from envelope.firewall.policy import Layout

HEADER = "  sl  local_address rem_address   st\n"


def v4(address: str, port: int) -> str:
    octets = bytes(int(part) for part in address.split("."))
    return f"{int.from_bytes(octets, 'little'):08X}:{port:04X}"


def line(local: str, remote: str, state: str) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000\n"


TCP = HEADER + "".join([
    line(v4("0.0.0.0", 22), v4("0.0.0.0", 0), "0A"),
    line(v4("203.0.113.1", 22), v4("203.0.113.9", 50000), "01"),
    line(v4("203.0.113.1", 40000), v4("198.51.100.5", 443), "01"),
    line(v4("127.0.0.1", 40001), v4("127.0.0.1", 5432), "01"),
])
UDP = HEADER + "".join([
    line(v4("0.0.0.0", 53), v4("0.0.0.0", 0), "07"),
    line(v4("203.0.113.1", 41000), v4("198.51.100.53", 53), "01"),
])
TCP6 = HEADER + line(
    "B80D0120000000000000000001000000:9C42", "B80D0120000000000000000005000000:01BB", "01"
)
LAYOUT = Layout.of(Config(), ())


def test_only_what_the_host_opened_is_carried() -> None:
    """Not what it serves, not loopback."""
    flows = own_flows({"tcp": TCP, "udp": UDP})
    assert [(f.protocol, f.local_port, str(f.remote)) for f in flows] == [
        ("tcp", 40000, "198.51.100.5"), ("udp", 41000, "198.51.100.53")]


def test_each_family_gets_its_own_rules(tmp_path: Path) -> None:
    """In the words that iptables-save and nft print."""
    for name, text in (("tcp", TCP), ("tcp6", TCP6)):
        (tmp_path / name).write_text(text)
    (four,), (six,) = (carried_flows(LAYOUT, version, tmp_path) for version in (4, 6))
    assert four.as_iptables == (
        "-s 198.51.100.5/32 -d 203.0.113.1/32 -p tcp -m tcp --sport 443 --dport 40000 -j ACCEPT")
    assert six.as_iptables == (
        "-s 2001:db8::5/128 -d 2001:db8::1/128 -p tcp -m tcp --sport 443 --dport 40002 -j ACCEPT")
    assert four.as_nft == (
        "ip saddr 198.51.100.5 ip daddr 203.0.113.1 tcp sport 443 tcp dport 40000 accept")
    assert six.as_nft == (
        "ip6 saddr 2001:db8::5 ip6 daddr 2001:db8::1 tcp sport 443 tcp dport 40002 accept")


def test_an_operators_baseline_is_none_of_ours(tmp_path: Path) -> None:
    """There the operator has thought of it."""
    layout = Layout.of(Config(baseline="operator"), ())
    assert carried_flows(layout, 4, tmp_path) == ()


def test_mapped_addresses_are_ipv4() -> None:
    """A dual-stack socket shows them so."""
    text = HEADER + line(
        "0000000000000000FFFF0000017100CB:9C40", "0000000000000000FFFF0000056433C6:01BB", "01"
    )
    (flow,) = own_flows({"tcp6": text})
    assert isinstance(flow, Flow)
    assert str(flow.remote) == "198.51.100.5"
