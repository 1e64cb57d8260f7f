"""The ledger against a plain model of it."""

from ipaddress import ip_network

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from envelope.sessions.sharing import Ledger

NETWORKS = [ip_network(n) for n in ("203.0.113.7/32", "203.0.113.8/32", "2001:db8::/64")]


def test_a_network_lasts_as_long_as_its_longest_holder() -> None:
    """The end moves back when the longest leaves, and is gone with the last."""
    ledger = Ledger()
    assert ledger.enter("a", NETWORKS[0], 100.0) == 100.0
    assert ledger.enter("b", NETWORKS[0], 300.0) == 300.0
    assert ledger.enter("c", NETWORKS[0], 200.0) == 300.0
    assert ledger.leave("b") == (NETWORKS[0], 200.0)
    assert ledger.leave("c") == (NETWORKS[0], 100.0)
    assert ledger.leave("a") == (NETWORKS[0], None)
    with pytest.raises(KeyError):
        ledger.end_of(NETWORKS[0])


def test_a_holder_enters_once_and_leaves_once() -> None:
    """A second entry under one name, or a second leave, is a mistake of the caller's."""
    ledger = Ledger()
    ledger.enter("a", NETWORKS[0], 1.0)
    with pytest.raises(ValueError, match="already holds"):
        ledger.enter("a", NETWORKS[1], 1.0)
    ledger.leave("a")
    with pytest.raises(KeyError):
        ledger.leave("a")


class LedgerModel(RuleBasedStateMachine):
    """Any order of entering and leaving agrees with a list of who is in."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.inside: dict[str, tuple[object, float]] = {}
        self.named = 0

    @rule(target=holders, network=st.sampled_from(NETWORKS), until=st.floats(0, 1e9))
    def enter(self, network, until):
        self.named += 1
        holder = f"h{self.named}"
        self.inside[holder] = (network, until)
        end = self.ledger.enter(holder, network, until)
        assert end == max(u for n, u in self.inside.values() if n == network)
        return holder

    @rule(holder=consumes(holders))
    def leave(self, holder):
        network, _ = self.inside.pop(holder)
        ends = [u for n, u in self.inside.values() if n == network]
        assert self.ledger.leave(holder) == (network, max(ends, default=None))

    @invariant()
    def open_networks_are_the_held_ones(self):
        model: dict[object, float] = {}
        for network, until in self.inside.values():
            model[network] = max(until, model.get(network, until))
        assert self.ledger.open_networks() == model
        for network in NETWORKS:
            held = {h for h, (n, _) in self.inside.items() if n == network}
            assert self.ledger.holders_of(network) == held


TestLedgerModel = LedgerModel.TestCase
