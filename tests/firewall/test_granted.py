"""What is cut when a grant ends, for any order of grants of one network."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from envelope.addresses import PortRange
from envelope.config.subjects import Service
from envelope.firewall import GrantId, Traffic
from envelope.firewall.granted import Granted

NDT, WEHE = (PortRange.parse("tcp/443"),), (PortRange.parse("tcp/5201"),)
SERVICES = (Service("ndt", NDT), Service("wehe", WEHE), Service("monitoring", ()))
NETWORK, OTHER = ip_network("203.0.113.7/32"), ip_network("203.0.113.8/32")
UNUSED = Traffic(0, 0, True, unused=True)
services = st.sampled_from(range(len(SERVICES)))


def test_others_are_those_of_the_same_family() -> None:
    """`--proxy-port`s are open as long as there are any."""
    granted = Granted(SERVICES, proxies=True)
    for network in (NETWORK, OTHER, ip_network("2001:db8::1/128")):
        granted.add(GrantId(network))
    assert len(granted.networks) == 3
    for network, others in ((OTHER, True), (NETWORK, False)):
        granted.remove(GrantId(network))
        cut = granted.ended(GrantId(network), None)
        assert cut is not None
        assert (cut.others, cut.unused, cut.still_open) == (others, False, ())


class Flows(RuleBasedStateMachine):
    """One network's grants; each may be used, and a flow lives until a cut that covers it."""

    def __init__(self) -> None:
        super().__init__()
        self.granted = Granted(SERVICES, proxies=False)
        self.held: set[int] = set()
        self.used: set[int] = set()
        # The services whose ports have flows that were opened under a grant.
        self.flows: set[int] = set()

    @rule(service=services)
    def grant(self, service):
        assert self.granted.add(GrantId(NETWORK, service)) == (service not in self.held)
        self.held.add(service)

    @rule(service=services, port=st.sampled_from([0, 1]))
    def open_flow(self, service, port):
        """Monitoring may open a flow to either port, the others to their own."""
        if service in self.held:
            self.used.add(service)
            self.flows.add(port if service == 2 else service)

    @rule(service=services, again=st.booleans())
    def end(self, service, again):
        """The kernel ends a grant; `again`: the network is let in again before that is known."""
        if service not in self.held:
            return
        grant = GrantId(NETWORK, service)
        traffic = Traffic(1, 60, True) if service in self.used else UNUSED
        self.used.discard(service)
        self.granted.remove(grant)
        self.held.discard(service)
        if again:
            self.grant(service)
        cut = self.granted.ended(grant, traffic)
        if cut is not None and not cut.unused:
            kept = {number for number in (0, 1) if SERVICES[number].ports[0] in cut.still_open}
            self.flows &= kept

    @invariant()
    def no_flow_outlives_its_grant(self):
        assert 2 in self.held or self.flows <= self.held


TestFlows = Flows.TestCase
