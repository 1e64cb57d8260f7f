"""Grants spread over chains: where each belongs, and the way to it."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.iptables.rules import GRANTS
from envelope.firewall.iptables.spread import branches, is_branch, leaf
from envelope.firewall.kernel import EVERYONE, Key

PREFIXES = st.sampled_from([(8, 32), (24, 32), (32, 32), (16, 128), (64, 128), (128, 128)])


def way(address: int, bits: int, chains: dict[str, tuple[str, ...]]) -> list[str]:
    """The chains that a packet from `address` comes through, as the kernel would compare it."""
    chain, seen = GRANTS, []
    while chains[chain]:
        seen.append(chain)
        (chain,) = (
            rule.split()[-1] for rule in chains[chain] if matches(rule.split()[1], address)
        )
    return [*seen, chain]


def matches(source: str, address: int) -> bool:
    want, mask = (int(ip_network(part).network_address) for part in source.split("/"))
    return address & mask == want


@given(sizes=PREFIXES, data=st.data())
def test_every_address_of_a_network_leads_to_its_chain(sizes, data) -> None:
    """By one way, whatever the bits behind the network's own."""
    prefix, bits = sizes
    network_bits = data.draw(st.integers(0, 2**prefix - 1))
    host_bits = data.draw(st.integers(0, 2 ** (bits - prefix) - 1))
    start = network_bits << (bits - prefix)
    version = 4 if bits == 32 else 6
    key = Key(f"{_text(start, version)}/{prefix}")
    chains = branches(prefix, bits)
    assert way(start | host_bits, bits, chains)[-1] == leaf(key)


def _text(number: int, version: int) -> str:
    return str(ip_network(number.to_bytes(4 if version == 4 else 16, "big")).network_address)


def test_a_packet_is_compared_few_times() -> None:
    """Sixteen rules on the longest way, instead of one for each of 256 chains."""
    chains = branches(32, 32)
    assert sum(is_branch(chain) and not rules for chain, rules in chains.items()) == 256
    assert all(len(rules) in (0, 4) for rules in chains.values())
    assert len(way(0xCB007107, 32, chains)) == 5


def test_everyones_rules_stay_in_the_first_chain() -> None:
    """They have no source to be spread by."""
    assert {leaf(key) for key in EVERYONE.values()} == {GRANTS}


def test_other_chains_are_no_branches() -> None:
    """A name has to be exactly one of those that are made here."""
    assert all(is_branch(chain) for chain in branches(32, 32) if chain != GRANTS)
    for name in (GRANTS, f"{GRANTS}-", f"{GRANTS}-4", f"{GRANTS}-00000", "ENVELOPE-WAS-0", "0"):
        assert not is_branch(name)
