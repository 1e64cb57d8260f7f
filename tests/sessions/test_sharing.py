"""The sessions that share a grant, against a plain model."""

from ipaddress import ip_network

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from envelope.sessions.sharing import SharedGrants

NETWORKS = [ip_network(n) for n in ("203.0.113.7/32", "203.0.113.8/32", "2001:db8::/64")]


def test_a_network_lasts_as_long_as_its_longest_session() -> None:
    """The end moves back when the longest leaves, and is gone with the last."""
    grants = SharedGrants()
    assert grants.enter("a", NETWORKS[0], 100.0) == 100.0
    assert grants.enter("b", NETWORKS[0], 300.0) == 300.0
    assert grants.enter("c", NETWORKS[0], 200.0) == 300.0
    assert grants.leave("b") == (NETWORKS[0], 200.0)
    assert grants.leave("c") == (NETWORKS[0], 100.0)
    assert grants.leave("a") == (NETWORKS[0], None)
    assert grants.enter("a", NETWORKS[0], 50.0) == 50.0


def test_a_session_enters_once_and_leaves_once() -> None:
    """A second entry under one name, or a second leave, is a mistake of the caller's."""
    grants = SharedGrants()
    grants.enter("a", NETWORKS[0], 1.0)
    with pytest.raises(ValueError, match="already shares"):
        grants.enter("a", NETWORKS[1], 1.0)
    grants.leave("a")
    with pytest.raises(KeyError):
        grants.leave("a")


class SharingModel(RuleBasedStateMachine):
    """Any order of entering and leaving agrees with a list of who is in."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.grants = SharedGrants()
        self.inside: dict[str, tuple[object, float]] = {}
        self.named = 0

    @rule(target=sessions, network=st.sampled_from(NETWORKS), until=st.floats(0, 1e9))
    def enter(self, network, until):
        self.named += 1
        session_id = f"h{self.named}"
        self.inside[session_id] = (network, until)
        end = self.grants.enter(session_id, network, until)
        assert end == max(u for n, u in self.inside.values() if n == network)
        return session_id

    @rule(session_id=consumes(sessions))
    def leave(self, session_id):
        network, _ = self.inside.pop(session_id)
        ends = [u for n, u in self.inside.values() if n == network]
        assert self.grants.leave(session_id) == (network, max(ends, default=None))


TestSharingModel = SharingModel.TestCase
