"""Rules as values, their text, and back."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.addresses import PROTOCOLS, PortRange, Protocol, parse_opening
from envelope.config import Config
from envelope.config.subjects import Subject
from envelope.firewall import grant_key
from envelope.firewall.iptables.ends import GRANULE, LATEST_END, MARGIN, end_of_grant
from envelope.firewall.iptables.rules import (
    baseline_rules,
    grant_rules,
    read_grant,
    respelled,
)
from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.policy import IPV4, IPV6, RuleChoices

SERVICE = (PortRange("tcp", 8880, 8880),)
SUBJECTS = (Subject("ndt"), Subject("wehe", (PortRange("udp", 5000, 5010),)))

networks = st.one_of(
    st.builds(lambda a, p: IPv4Network((a, p), strict=False),
              st.integers(0, 2**32 - 1), st.integers(8, 32)),
    st.builds(lambda a, p: IPv6Network((a, p), strict=False),
              st.integers(0, 2**128 - 1), st.integers(16, 128)),
)
ends = st.integers(0, LATEST_END)


def choices(**options: object) -> RuleChoices:
    """Choices with the service's own port and the given options."""
    return RuleChoices.of(Config(**options), SERVICE)  # type: ignore[arg-type]


def test_the_baseline_reads_as_documented() -> None:
    """The order and the wording of the contract, as iptables-save prints them."""
    assert baseline_rules(choices(), IPV4) == [
        "! -i eth0 -j ACCEPT",
        "-p icmp -j ACCEPT",
        "-p tcp -m tcp --dport 8880 -j ACCEPT",
        "-p udp -m udp --dport 53 -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j ACCEPT",
        "-j ENVELOPE-GRANTS",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "-j REJECT --reject-with icmp-port-unreachable",
    ]


def test_the_other_family_and_the_other_choices() -> None:
    """IPv6 has its own ICMP; `keep` drops the direction; ranges and duplicates are folded."""
    rules = baseline_rules(
        choices(established="keep", device="net1",
               allow=(PortRange("udp", 5000, 5010), PortRange("tcp", 8880, 8880))),
        IPV6,
    )
    assert rules == [
        "! -i net1 -j ACCEPT",
        "-p ipv6-icmp -j ACCEPT",
        "-s fe80::/10 -p udp -m udp --sport 547 --dport 546 -j ACCEPT",
        "-p tcp -m tcp --dport 8880 -j ACCEPT",
        "-p udp -m udp --dport 5000:5010 -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-j ENVELOPE-GRANTS",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "-j REJECT --reject-with icmp6-port-unreachable",
    ]


def test_a_grant_opens_only_the_ports_it_may() -> None:
    """One rule for each port, each with its end in UTC."""
    network = Key("203.0.113.7/32")
    ports = (PortRange("tcp", 80, 80), PortRange("udp", 5000, 5010))
    assert grant_rules(choices(grant_port=ports), network, 0) == (
        "-s 203.0.113.7/32 -p tcp -m tcp --dport 80 -j ENVELOPE-END-19700101T000000",
        "-s 203.0.113.7/32 -p udp -m udp --dport 5000:5010 -j ENVELOPE-END-19700101T000000",
    )


def test_the_admin_ports_are_refused_before_the_grants() -> None:
    """Unless `--allow` names one, or the service itself listens on it."""
    ports = tuple(PortRange("tcp", port, port) for port in (9990, 9991, 8880))
    allow = (PortRange("tcp", 9000, 9990), PortRange("udp", 9991, 9991))
    rules = baseline_rules(RuleChoices.of(Config(allow=allow), SERVICE, ports), IPV4)
    place = rules.index("-j ENVELOPE-GRANTS")
    assert rules[place - 1] == "-p tcp -m tcp --dport 9991 -j REJECT --reject-with tcp-reset"
    assert [rule for rule in rules if "REJECT" in rule][:-2] == [rules[place - 1]]


def test_protocols_without_ports_are_rules_by_number() -> None:
    """A name would be looked up in /etc/protocols; ip6tables has a match of its own for AH."""
    allow = (Protocol(112), Protocol(51))
    for family, header in ((IPV4, "-p 51"), (IPV6, "-m ah")):
        rules = baseline_rules(choices(allow=allow), family)
        place = rules.index("-p 112 -j ACCEPT")
        assert rules[place + 1] == f"{header} -j ACCEPT"


@pytest.mark.parametrize(("printed", "ours"), [
    ("-p vrrp -j ACCEPT", "-p 112 -j ACCEPT"),
    ("-p 253 -j ACCEPT", "-p 253 -j ACCEPT"),
    ("-p ipv6-icmp -j ACCEPT", "-p ipv6-icmp -j ACCEPT"),
    ("-p nosuchname -j ACCEPT", "-p nosuchname -j ACCEPT"),
    ("-s ::1.2.3.4/128 -m time --datestop X -j ACCEPT",
     "-s ::102:304/128 -m time --datestop X -j ACCEPT"),
    ("-s ::0.3.0.0/::0.3.0.0 -j ENVELOPE-GRANTS-1", "-s ::3:0/::3:0 -j ENVELOPE-GRANTS-1"),
    ("-s ::5/128 -j ACCEPT", "-s ::5/128 -j ACCEPT"),
    ("-s 2001:db8::7/128 -j ACCEPT", "-s 2001:db8::7/128 -j ACCEPT"),
    ("-p x\udcff -j ACCEPT", "-p x\udcff -j ACCEPT"),
])
def test_both_spellings_of_a_rule_are_one(printed, ours) -> None:
    """What the tools print differs from what they were given."""
    assert respelled(printed) == ours


@given(network=networks, end=ends, ports=st.sampled_from([(), SERVICE, (*SERVICE, *SERVICE)]),
       number=st.sampled_from([0, 1, 2]))
def test_reading_a_grant_back_gives_what_was_written(network, end, ports, number) -> None:
    """The inverse holds for every network, end and port."""
    key = grant_key(str(network), number)
    subjects = SUBJECTS if number else ()
    for rule in grant_rules(choices(grant_port=ports, subject=subjects), key, end):
        assert read_grant(rule, service=number) == (key, end)


@given(end=ends, version=st.sampled_from([4, 6]))
def test_proxy_ports_are_everyones_grant(end, version) -> None:
    """They name no source, and read back as the whole family's."""
    everyone = EVERYONE[version]
    rules = grant_rules(choices(proxy_port=(80, 443, 80)), everyone, end)
    assert len(rules) == 2
    assert {read_grant(rule, version) for rule in rules} == {(everyone, end)}


@pytest.mark.parametrize("rule", [
    "-s 203.0.113.7/32 -j ACCEPT",
    "-s 203.0.113.7/32 -j ENVELOPE-END-20261301T000000",
    "-s 203.0.113.7/32 -j ENVELOPE-END-2026",
    "-s 203.0.113.7/33 -j ENVELOPE-END-20260101T000000",
    "-s 203.0.113.7/32 -m time --datestop 2026-01-01T00:00:00 -j DROP",
    "-s 203.0.113.7/33 -m time --datestop 2026-01-01T00:00:00 -j ACCEPT",
    "-s 203.0.113.7/32 -m time --datestop 2026-13-01T00:00:00 -j ACCEPT",
    "-d 203.0.113.7/32 -m time --datestop 2026-01-01T00:00:00 -j ACCEPT",
    "",
])
def test_a_stranger_is_no_grant(rule) -> None:
    """Rules that others put into our chain are told from ours."""
    assert read_grant(rule) is None


@given(deadline=st.floats(0, 1e300))
def test_a_grant_ends_soon_after_its_deadline_but_never_before(deadline) -> None:
    """The backstop is later than the deadline by seconds; the parser's last day bounds it."""
    end = end_of_grant(deadline)
    assert end <= LATEST_END
    if deadline < LATEST_END - 10:
        assert deadline + MARGIN <= end < deadline + MARGIN + GRANULE + 0.001
        assert end % GRANULE == 0


def test_a_grant_of_an_older_version_is_read() -> None:
    """It has its end in a rule of its own."""
    rule = "-s 203.0.113.7/32 -m time --datestop 1970-01-01T00:01:00 -j ACCEPT"
    assert read_grant(rule) == (Key("203.0.113.7/32"), 60)


@given(text=st.text(max_size=30))
def test_port_ranges_parse_or_say_why(text) -> None:
    """Whatever the text, it is a range that prints as itself, or one line of refusal."""
    try:
        ports = PortRange.parse(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert PortRange.parse(str(ports)) == ports


@pytest.mark.parametrize("text", ["tcp", "tcp/", "tcp/0", "tcp/65536", "icmp/1", "udp/9-1", "/5",
                                  "tcp/1-", "tcp/١"])  # noqa: RUF001
def test_port_ranges_that_are_none(text) -> None:
    """Each is refused."""
    with pytest.raises(ValueError, match=r"\S"):
        PortRange.parse(text)


@pytest.mark.parametrize(("text", "number"), [
    ("igmp", 2), (" ESP", 50), ("vrrp", 112), ("112", 112), ("proto/253", 253), ("sctp", 132),
    ("proto/22", 22),
])
def test_protocols_are_named_or_numbered(text, number) -> None:
    opening = parse_opening(text)
    assert opening == Protocol(number)
    assert parse_opening(str(opening)) == opening
    assert not opening.covers("tcp", 22)


@pytest.mark.parametrize("text", [
    "tcp", "UDP", "6", "17", "icmp", "1", "icmpv6", "58", "0", "43", "44", "60", "256", "9999",
    "proto/", "proto/tcp", "", "all", "22", "80", "-1", "esp/1", "vrrp/", "igmp-3", "١",  # noqa: RUF001
])
def test_protocols_that_are_none(text) -> None:
    """Those with ports need one, ICMP is open, and headers of IPv6 are no protocols."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_opening(text)


def test_every_named_protocol_is_one() -> None:
    assert {name: parse_opening(name).number for name in PROTOCOLS} == PROTOCOLS


def test_a_range_covers_its_ports() -> None:
    """Both ends included, and only its own protocol."""
    ports = PortRange.parse("TCP/10-12")
    assert [p for p in range(8, 15) if ports.covers("tcp", p)] == [10, 11, 12]
    assert not ports.covers("udp", 10)
