"""The sessions that share a grant, against a plain model."""

from ipaddress import ip_network

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from envelope.firewall import GrantId
from envelope.sessions.sharing import SharedGrants

GRANTS = [
    GrantId(ip_network(network), service)
    for network in ("203.0.113.7/32", "203.0.113.8/32", "2001:db8::/64") for service in (0, 2)
]


def test_a_grant_ends_with_the_latest_deadline_of_its_sessions() -> None:
    """It becomes earlier when that session leaves, and None with the last one."""
    grants = SharedGrants()
    assert grants.add("a", GRANTS[0], 100.0) == 100.0
    assert grants.add("b", GRANTS[0], 300.0) == 300.0
    assert grants.add("c", GRANTS[0], 200.0) == 300.0
    assert grants.remove("b") == (GRANTS[0], 200.0)
    assert grants.remove("c") == (GRANTS[0], 100.0)
    assert grants.remove("a") == (GRANTS[0], None)
    assert grants.add("a", GRANTS[0], 50.0) == 50.0


def test_a_session_is_added_once_and_removed_once() -> None:
    """Anything else is a mistake of the caller."""
    grants = SharedGrants()
    grants.add("a", GRANTS[0], 1.0)
    with pytest.raises(ValueError, match="already shares"):
        grants.add("a", GRANTS[1], 1.0)
    grants.remove("a")
    with pytest.raises(KeyError):
        grants.remove("a")


class SharingModel(RuleBasedStateMachine):
    """Sessions that are added and removed in any order."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.grants = SharedGrants()
        self.present: dict[str, tuple[object, float]] = {}
        self.number = 0

    @rule(target=sessions, grant=st.sampled_from(GRANTS), deadline=st.floats(0, 1e9))
    def add(self, grant, deadline):
        self.number += 1
        session_id = f"s{self.number}"
        self.present[session_id] = (grant, deadline)
        end = self.grants.add(session_id, grant, deadline)
        assert end == max(d for n, d in self.present.values() if n == grant)
        return session_id

    @rule(session_id=consumes(sessions))
    def remove(self, session_id):
        grant, _ = self.present.pop(session_id)
        ends = [d for n, d in self.present.values() if n == grant]
        assert self.grants.remove(session_id) == (grant, max(ends, default=None))


TestSharingModel = SharingModel.TestCase
