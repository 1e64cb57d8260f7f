"""Anything in any order, over the real kernel: what it holds is what the model holds.

Clients come, stay and go through the real `Sessions`, alone and many at once; the tool fails in
every way it knows; the service is killed and started again; others change the rules. After every
step that can be waited for, the rules are compared with the model's, and packets are sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from greenlet import greenlet
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from envelope.admission import Admission
from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.iptables import IptablesFirewall
from envelope.metrics import Metrics
from envelope.sessions import End, Sessions
from tests.kernel.faulty import FaultyTools
from tests.kernel.model import EDITS, OPERATORS, Others, edit, look, remembered_policy
from tests.kernel.mortal import MortalReactor
from tests.kernel.subject import FAMILY_TOOLS, KINDS, SERVICE, Kernel
from tests.kernel.udp import Listener, addresses

pytestmark = pytest.mark.kernel

CLIENTS = ["203.0.113.2", "203.0.113.3", "203.0.113.66", "2001:db8::2", "2001:db8::66"]
CROWD = [f"203.0.113.{n}" for n in range(100, 140)]
NOBODY: dict[int, dict[str, float]] = {4: {}, 6: {}}
# How many of the service's seconds go into one of ours: its timeouts and pauses are waited for.
HASTE = 4.0
# Steps for each kind of iptables: `make soak` says how long instead (seconds).
STEPS, STEPS_AT_ONCE = 160, 40
SOAK = float(os.environ.get("SOAK_SECONDS", "0"))
# Orders whose failure takes the tool's whole patience are rarer than the others.
QUICK = ["fail", "poison", "fail@1", "fail@2", "truncate", "die-when-asked", "die-midway",
         "die-midway@2", "die-before-commit", "die-before-echo", "die-before-echo@1",
         "save-fails", "save-garbles", "save-truncates", "poison save-fails"]
SLOW = ["hang@1", "garble@1", "silent", "save-hangs"]

lengths = st.sampled_from([1.0, 9000.0, 20000.0])
foreign_chains = st.sampled_from(["INPUT", "FORWARD", "ENVELOPE", "ENVELOPE-GRANTS"])


class Client:
    """One client, from its request to its end; also the connection that the session closes."""

    def __init__(self, address: str, lasts: float) -> None:
        self.address = address
        self.network = str(ip_network(address))
        self.lasts = lasts
        self.deadline = 0.0
        self.state = "asking"

    def ask(self, sessions: Sessions, now: float) -> None:
        self.deadline = now + self.lasts
        admission = Admission(self.lasts, self.deadline, "")
        self.answer = sessions.admit(ip_address(self.address), admission, self)
        self.answer.addCallbacks(self._admitted, self._refused)

    def _admitted(self, session: object) -> None:
        self.session = session
        self.state = "in"

    def _refused(self, failure: object) -> None:
        failure.trap(FirewallError)
        self.state = "refused"

    def leave(self, how: str) -> None:
        if self.state == "asking":
            self.state = "gone"
            self.answer.addErrback(lambda _: None)
            self.answer.cancel()
        elif self.state == "in":
            self.state = "leaving"
            {"close": self.session.client_closed, "data": self.session.data_received,
             "vanish": self.session.client_left}[how]()

    def close(self, code: int, reason: str) -> None:
        self.state = "out"

    def abort(self) -> None:
        self.state = "out"


class Machine(RuleBasedStateMachine):
    """One example: a service's life over one kind of iptables, which a fixture provides."""

    kernel: Kernel
    tools: FaultyTools
    listener: Listener
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.others = {family: Others() for family in FAMILY_TOOLS}
        self.clients: list[Client] = []
        self.up = self.left_over = False
        self.baseline = "service"
        self.orders = ""
        # Whether others have changed what is ours since the tool stopped working.
        self.disturbed = False
        self.number = 0
        self.clock_set_by = 0

    # -- what the steps are made of --------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        blockon(deferLater(reactor, seconds))

    def _wall(self) -> float:
        """The time of day, as the service sees it: as hasty as its timers, and somebody sets it."""
        return self.reactor.seconds() + self.clock_set_by

    def _deadlines(self) -> dict[int, dict[str, float]]:
        """Who should be let in, until when, in the time of day as it is told now."""
        wanted: dict[int, dict[str, float]] = {family: {} for family in FAMILY_TOOLS}
        for client in self.clients:
            if client.state == "in":
                networks = wanted[6 if ":" in client.network else 4]
                deadline = client.deadline + self.clock_set_by
                networks[client.network] = max(deadline, networks.get(client.network, 0.0))
        return wanted

    def _settle(self) -> None:
        """Wait until nothing is left to do, then compare rules and packets with the model."""
        limit = time.monotonic() + 30
        while True:
            quiet = (
                not self.firewall.problems() and len(self.sessions) == len(
                    [client for client in self.clients if client.state == "in"])
                and not any(client.state == "asking" for client in self.clients)
            )
            different = ["not quiet"] if not quiet else look(
                self.kernel, self.others, self.baseline, self._deadlines())
            if not different:
                break
            states = [client.state for client in self.clients]
            assert time.monotonic() < limit, (
                different, states, len(self.sessions), self.firewall.problems())
            self._wait(0.02)
        self.clients = [client for client in self.clients if client.state == "in"]
        self._send_packets(exactly=True)

    def _send_packets(self, exactly: bool) -> None:
        inside = {client.address: client for client in self.clients if client.state == "in"}
        for source in CLIENTS:
            if source in inside and inside[source].lasts < 3600 and self.clock_set_by:
                # The machine's own clock was not set, and the kernel has ended it.
                continue
            heard = self.listener.hears(source)
            assert heard or source not in inside, f"{source} has a session and is refused"
            if exactly:
                assert heard == (source in inside), f"{source} has no session and is let in"

    def _step(self) -> None:
        type(self).steps += 1
        if self.up and not self.orders:
            self._settle()
            self.disturbed = False
        elif not self.up and not self.left_over:
            assert not look(self.kernel, self.others, None, NOBODY)

    def _start(self, baseline: str) -> None:
        self.reactor = MortalReactor(HASTE)
        folder = self.tools.folder
        config = Config(
            device="lo", iptables=folder / "iptables", ip6tables=folder / "ip6tables",
            baseline=baseline,
        )
        metrics = Metrics()
        self.firewall = IptablesFirewall(
            self.reactor, config, metrics, wall=self._wall, check_every=0.4)
        try:
            blockon(self.firewall.open(SERVICE))
        except FirewallError:
            assert self.orders, "a start failed although the tool works"
            blockon(self.reactor.die())
            return
        self.baseline, self.up, self.left_over = baseline, True, True
        self.sessions = Sessions(
            self.reactor, config, self.firewall, lambda *_: None, metrics, self._wall)

    def _order(self, orders: str) -> None:
        self.orders = orders
        self.tools.order(*orders.split())

    # -- the steps -------------------------------------------------------------------------

    @initialize(policy=st.sampled_from(["ACCEPT", "DROP"]), before=st.booleans(),
                baseline=st.sampled_from(["service", "service", "operator"]))
    def begin(self, policy: str, before: bool, baseline: str) -> None:
        """Somebody's rules are there; the service starts."""
        for family, others in self.others.items():
            others.policy = policy
            self.kernel.run(family, "-P", "INPUT", policy)
            if before:
                self._add(family, "INPUT", "-A")
                self._add(family, "FORWARD", "-A")
        self._start(baseline)
        self._keep_rejecting()
        self._settle()

    def _keep_rejecting(self) -> None:
        """An operator's baseline would refuse our packets by itself."""
        for family, others in self.others.items():
            for words in OPERATORS[family] if self.baseline == "operator" else ():
                if words not in others.rules["INPUT"]:
                    self.kernel.run(family, "-A", "INPUT", *words.split())
                    others.rules["INPUT"].append(words)

    def _add(self, family: int, chain: str, where: str) -> None:
        self.number += 1
        source = {4: f"198.51.100.{self.number % 250 + 1}/32",
                  6: f"2001:db8:1::{self.number:x}/128"}[family]
        ours = chain.startswith("ENVELOPE")
        if ours and chain not in self.kernel.snapshot(family).rules:
            return
        words = f"-s {source} -j DROP"
        self.kernel.run(family, where, chain, *words.split())
        there = self.others[family].rules[chain]
        there.insert(0 if where == "-I" else len(there), words)

    @precondition(lambda self: self.up)
    @rule(address=st.sampled_from(CLIENTS), lasts=lengths)
    def come(self, address: str, lasts: float) -> None:
        """One client asks."""
        client = Client(address, lasts)
        self.clients.append(client)
        client.ask(self.sessions, self.reactor.seconds())
        if not self.orders:
            while client.state == "asking":
                self._wait(0.005)
            assert client.state != "refused", "refused although the tool works"
        self._step()

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 99), how=st.sampled_from(["close", "data", "vanish", "operator"]))
    def go(self, which: int, how: str) -> None:
        """One client goes, or is sent away."""
        client = self.clients[which % len(self.clients)]
        if how == "operator":
            for session_id, (stay, _) in list(self.sessions._lives.items()):
                if stay.carrier is client and client.state == "in":
                    client.state = "leaving"
                    self.sessions.end_session(session_id, End.REVOKED)
        else:
            client.leave(how)
        self._step()

    @precondition(lambda self: self.up)
    @rule(moves=st.lists(st.tuples(
        st.booleans(), st.sampled_from(CLIENTS), st.integers(0, 99), lengths), max_size=12))
    def storm(self, moves: list[tuple[bool, str, int, float]]) -> None:
        """Many come and go before anything is answered."""
        for coming, address, which, lasts in moves:
            if coming:
                self.clients.append(Client(address, lasts))
                self.clients[-1].ask(self.sessions, self.reactor.seconds())
            elif self.clients:
                self.clients[which % len(self.clients)].leave("vanish")
        self._step()

    @precondition(lambda self: self.up)
    @rule(stay=st.booleans())
    def crowd(self, stay: bool) -> None:
        """So many come at once that their rules are spread over chains, and go again."""
        crowd = [Client(address, 9000.0) for address in CROWD]
        self.clients += crowd
        for client in crowd:
            client.ask(self.sessions, self.reactor.seconds())
        self._step()
        if not stay:
            for client in crowd:
                client.leave("close")
            self._step()

    @precondition(lambda self: not self.orders)
    @rule(orders=st.sampled_from([*QUICK, *SLOW]))
    def break_tool(self, orders: str) -> None:
        """From now on the tool fails."""
        self._order(orders)
        self._step()

    @precondition(lambda self: self.orders)
    @rule(after=st.sampled_from([0.0, 0.05, 0.3]))
    def repair_tool(self, after: float) -> None:
        """The tool works again: whatever was asked meanwhile comes true or was refused."""
        self._wait(after)
        self._order("")
        self._step()

    @precondition(lambda self: self.up)
    @rule(family=st.sampled_from([4, 6]), what=st.sampled_from(list(EDITS)))
    def interfere(self, family: int, what: str) -> None:
        """Somebody changes what is ours."""
        edit(self.kernel, family, what, self.others[family], self.baseline)
        self._keep_rejecting()
        self.disturbed = True
        self._step()

    @rule(to=st.sampled_from([0, 3600, -3600]))
    def set_clock(self, to: int) -> None:
        """The time of day changes, and no session's length."""
        self.clock_set_by = to
        self._step()

    @rule(family=st.sampled_from([4, 6]), chain=foreign_chains, where=st.sampled_from(["-A", "-I"]))
    def add_foreign(self, family: int, chain: str, where: str) -> None:
        """Somebody adds a rule of their own; what is above us goes below."""
        self._add(family, chain, where)
        self._step()

    @rule(family=st.sampled_from([4, 6]), chain=foreign_chains, which=st.integers(0, 99))
    def remove_foreign(self, family: int, chain: str, which: int) -> None:
        """Somebody takes one of their rules away."""
        there = self.others[family].rules[chain]
        if there and chain in self.kernel.snapshot(family).rules:
            words = there.pop(which % len(there))
            self.kernel.run(family, "-D", chain, *words.split())
            self._keep_rejecting()
        self._step()

    @precondition(lambda self: self.up)
    @rule(children_too=st.booleans())
    def kill(self, children_too: bool) -> None:
        """As `kill -9` does: nothing of what was under way goes on, and the rules stay."""
        settled = not self.orders
        blockon(self.reactor.die(children_too))
        self.firewall._release()
        self.up = False
        if settled:
            assert not look(self.kernel, self.others, self.baseline, self._deadlines())
            self._send_packets(exactly=True)
        elif self.disturbed:
            # Nobody can remember what was deleted while the tool did not work.
            for family, others in self.others.items():
                others.policy = remembered_policy(self.kernel, family)
        self.clients = []
        self.disturbed = False
        self._step()

    @precondition(lambda self: not self.up)
    @rule(baseline=st.sampled_from(["service", "service", "operator"]))
    def start(self, baseline: str) -> None:
        """A successor clears what is left and takes over, perhaps with other options."""
        if self.left_over:
            # What others put into our chains is cleared along with what is left of ours.
            for others in self.others.values():
                for chain in ("ENVELOPE", "ENVELOPE-GRANTS"):
                    others.rules.pop(chain, None)
        self._start(baseline)
        self._keep_rejecting()
        self._step()

    @precondition(lambda self: self.up and not self.orders)
    @rule()
    def stop(self) -> None:
        """All that is left is what others have."""
        self._stop()
        self._step()

    def _stop(self) -> None:
        self.sessions.end_all(End.SHUTDOWN)
        done: Deferred = self.sessions.when_empty()
        blockon(done)
        blockon(self.firewall.close())
        self.up = self.left_over = False
        self.clients = []
        for others in self.others.values():
            for chain in ("ENVELOPE", "ENVELOPE-GRANTS"):
                others.rules.pop(chain, None)

    def teardown(self) -> None:
        """The clean stop of whatever is there gives back what others have."""
        try:
            self._order("")
            if not self.up:
                self.start("service")
            self._settle()
            self._stop()
            assert not look(self.kernel, self.others, None, NOBODY)
        finally:
            self._wipe()

    def _wipe(self) -> None:
        """Begin the next example with nothing there, also after one that failed."""
        blockon(self.reactor.die())
        self.firewall._release()
        for family in FAMILY_TOOLS:
            for words in (["-F"], ["-X"], ["-P", "INPUT", "ACCEPT"]):
                self.kernel.run(family, *words)


@pytest.fixture(params=KINDS)
def machine(request, tmp_path):
    """A class of machines of one kind."""
    with Listener() as listener, addresses(*CLIENTS):
        kind = request.param
        yield type(f"Machine_{kind}", (Machine,), {
            "kernel": Kernel(kind), "tools": FaultyTools(tmp_path, kind), "listener": listener,
            "steps": 0, "TestCase": None,
        })


def in_greenlet(call: Callable[[], None]) -> Deferred[None]:
    """Run what blocks on Deferreds beside the reactor, whose greenlet tests run in."""
    done: Deferred[None] = Deferred()

    def run() -> None:
        try:
            call()
        except BaseException:
            done.errback()
        else:
            done.callback(None)

    greenlet(run).switch()
    return done


def test_the_kernel_holds_what_the_model_holds(machine) -> Deferred[None]:
    """Whatever happened, after every step that can be waited for."""
    return in_greenlet(lambda: run(machine))


def run(machine: type[Machine]) -> None:
    """Run examples until there were enough steps, or for as long as asked."""
    end = time.monotonic() + SOAK / len(KINDS)
    at_once = settings(
        stateful_step_count=STEPS_AT_ONCE, max_examples=STEPS // STEPS_AT_ONCE, deadline=None,
        suppress_health_check=list(HealthCheck), database=None, derandomize=not SOAK,
        phases=[Phase.generate], report_multiple_bugs=False, print_blob=True,
    )
    while machine.steps < STEPS or time.monotonic() < end:
        run_state_machine_as_test(machine, settings=at_once)
    print(f"{machine.steps} steps")
