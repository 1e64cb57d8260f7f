"""Everything that may happen to a service and to the rules: a state machine for hypothesis.

After every step that can be waited for, `servicelife` compares the rules and sends packets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.kernel.faultyiptables import POISON4, POISON6
from tests.kernel.modelclient import Client
from tests.kernel.modelservices import ONE, SEVERAL, Guarded
from tests.kernel.servicelife import CLIENTS, NO_GRANTS, ServiceLife
from tests.kernel.udpprobe import Listener

CROWD = [f"203.0.113.{n}" for n in range(100, 140)]
# After so many steps the tool works again, because a full comparison needs a working tool.
LONGEST_TROUBLE = 4
# SLOW orders make the service wait for its time-out, so there are fewer of them.
QUICK = ["fail", "poison", "fail@1", "fail@2", "truncate", "die-when-asked", "die-midway",
         "die-midway@2", "die-before-commit", "die-before-echo", "die-before-echo@1",
         "save-fails", "save-garbles", "save-truncates", "poison save-fails",
         "fail:iptables", "fail:ip6tables"]
SLOW = ["hang@1", "garble@1", "silent", "save-hangs"]

lengths = st.sampled_from([1.0, 9000.0, 20000.0])
families = st.sampled_from([4, 6])
numbers = st.integers(0, 99)
doors = st.sampled_from([ONE, SEVERAL])
foreign_chains = st.sampled_from(
    ["INPUT", "FORWARD", "ENVELOPE", "ENVELOPE-GRANTS", "ENVELOPE-GRANTS-S1"])


class Machine(RuleBasedStateMachine):
    """One example: a service and its successors in a world that `world` makes.

    `first` is what the first service guards; a successor may guard something else.
    """

    world: Callable[[], Any]
    first: Guarded = ONE
    listener: Listener
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.trouble = 0
        self.life = ServiceLife(type(self).world(), self.listener)

    def _step(self) -> None:
        type(self).steps += 1
        self.trouble = self.trouble + 1 if self.life.orders else 0
        if self.trouble > LONGEST_TROUBLE:
            self.life.order("")
        self.life.step()

    def _baseline(self, number: int) -> str:
        baselines: tuple[str, ...] = self.life.world.baselines
        return baselines[number % len(baselines)]

    @initialize(policy=st.sampled_from(["ACCEPT", "DROP"]), rules=st.booleans(), baseline=numbers)
    def begin(
        self, policy: str, rules: bool, baseline: int, guarded: Guarded | None = None
    ) -> None:
        """Start the service, with or without rules of others."""
        self.life.world.begin(policy, rules)
        self.life.start(self._baseline(baseline), guarded or self.first)
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(address=st.sampled_from(CLIENTS), lasts=lengths, service=numbers)
    def connect(self, address: str, lasts: float, service: int = 0) -> None:
        """One client connects."""
        self._let_in([self._connect(address, lasts, service)])
        self._step()

    def _connect(self, address: str, lasts: float, service: int) -> Client:
        return self.life.connect(address, lasts, self.life.guarded.number(service))

    def _let_in(self, clients: Iterable[Client]) -> None:
        """Wait until the clients that the tool does not refuse are admitted."""
        poison = self.life.orders == "poison" and not self.life.disturbed
        for client in clients if poison or not self.life.orders else ():
            if poison and client.address in (POISON4, POISON6):
                continue
            self.life.until(lambda client=client: client.state != "asking")
            assert client.state != "refused", f"{client.address} is refused although the tool works"

    @precondition(lambda self: self.life.clients)
    @rule(which=numbers, how=st.sampled_from(["close", "data", "vanish", "revoked"]))
    def end_session(self, which: int, how: str) -> None:
        """One client leaves, or an operator revokes its session."""
        client = self.life.clients[which % len(self.life.clients)]
        if how == "revoked":
            client.be_revoked()
        else:
            client.leave(how)
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(moves=st.lists(
        st.tuples(st.booleans(), st.sampled_from(CLIENTS), numbers, lengths), max_size=12))
    def connect_and_leave(self, moves: list[tuple[bool, str, int, float]]) -> None:
        """Many clients connect and leave before any is answered.

        A number says to which service a client connects, or which one leaves.
        """
        came = []
        for coming, address, which, lasts in moves:
            if coming:
                came.append(self._connect(address, lasts, which))
            elif self.life.clients:
                self.life.clients[which % len(self.life.clients)].leave("vanish")
        self._let_in(came)
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(stay=st.booleans(), service=numbers)
    def connect_crowd(self, stay: bool, service: int = 0) -> None:
        """So many connect that grants are spread over chains; without `stay` they leave again."""
        crowd = [self._connect(address, 9000.0, service) for address in CROWD]
        self._step()
        if not stay:
            for client in crowd:
                client.leave("close")
            self._step()

    @precondition(lambda self: not self.life.orders)
    @rule(orders=st.sampled_from([*QUICK, *SLOW]))
    def break_tool(self, orders: str) -> None:
        """The tool starts to fail."""
        self.life.order(orders)
        self._step()

    @precondition(lambda self: self.life.orders)
    @rule(after=st.sampled_from([0.0, 0.05, 0.3]))
    def repair_tool(self, after: float) -> None:
        """The tool works again; everything asked for meanwhile is done or refused."""
        self.life.wait(after)
        self.life.order("")
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(family=families, which=numbers)
    def change_our_rules(self, family: int, which: int) -> None:
        """Others change our rules."""
        world, edits = self.life.world, self.life.world.edits
        world.edit(family, edits[which % len(edits)], self.life.baseline)
        world.keep_refusing(self.life.baseline)
        self.life.disturbed = True
        self._step()

    @rule(to=st.sampled_from([0, 3600, -3600]))
    def set_clock(self, to: int) -> None:
        """The wall clock is set `to` seconds ahead; no session gets longer or shorter."""
        self.life.clock.set(to)
        self._step()

    @rule(family=families, chain=foreign_chains, where=st.sampled_from(["-A", "-I"]))
    def add_foreign(self, family: int, chain: str, where: str) -> None:
        """Others add a rule of their own, also above our jump."""
        self.life.world.add(family, chain, where)
        self.life.disturbed = True
        self._step()

    @rule(family=families, chain=foreign_chains, which=numbers)
    def remove_foreign(self, family: int, chain: str, which: int) -> None:
        """Others remove one of their rules."""
        self.life.world.remove(family, chain, which)
        self.life.disturbed = True
        if self.life.up:
            self.life.world.keep_refusing(self.life.baseline)
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(children_too=st.booleans())
    def kill(self, children_too: bool) -> None:
        """The service is killed, with or without its children."""
        self.life.kill(children_too)
        self._step()

    @precondition(lambda self: not self.life.up)
    @rule(baseline=numbers, guarded=doors)
    def start(self, baseline: int, guarded: Guarded = ONE) -> None:
        """A successor starts, perhaps with other options, and clears what is left."""
        self.life.start(self._baseline(baseline), guarded)
        self._step()

    @precondition(lambda self: self.life.up and not self.life.orders)
    @rule()
    def stop(self) -> None:
        """The service stops cleanly."""
        self.life.stop()
        self._step()

    def teardown(self) -> None:
        """At the end a clean stop leaves exactly the rules of others."""
        try:
            self.life.order("")
            if not self.life.up:
                self.life.start("service")
            self.life.step()
            self.life.stop()
            assert not self.life.world.differences(None, ONE, NO_GRANTS, 0.0)
        finally:
            self.life.wipe()
