"""Anything in any order, over the real kernel: what it holds is what the model holds.

Clients come, stay and go through the real `Sessions`, alone and many at once; the tool fails in
every way it knows; the service is killed and started again; others change the rules. After every
step that can be waited for, the rules are compared with the model's, and packets are sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred

from tests.kernel.beside import in_greenlet
from tests.kernel.model import IptablesWorld
from tests.kernel.modellife import CLIENTS, NOBODY, Life
from tests.kernel.nftmodel import NftWorld
from tests.kernel.subject import ALL_KINDS
from tests.kernel.udp import Listener, addresses

pytestmark = pytest.mark.kernel

CROWD = [f"203.0.113.{n}" for n in range(100, 140)]
# Steps for each kind of tool; `make soak` says how long instead (seconds).
STEPS, STEPS_AT_ONCE = 300, 20
# The tool works again after so many steps at most: what it refused is compared only then.
LONGEST_TROUBLE = 4
SOAK = float(os.environ.get("SOAK_SECONDS", "0"))
# Orders whose failure takes the tool's whole patience are rarer than the others.
QUICK = ["fail", "poison", "fail@1", "fail@2", "truncate", "die-when-asked", "die-midway",
         "die-midway@2", "die-before-commit", "die-before-echo", "die-before-echo@1",
         "save-fails", "save-garbles", "save-truncates", "poison save-fails"]
SLOW = ["hang@1", "garble@1", "silent", "save-hangs"]

lengths = st.sampled_from([1.0, 9000.0, 20000.0])
families = st.sampled_from([4, 6])
numbers = st.integers(0, 99)
foreign_chains = st.sampled_from(["INPUT", "FORWARD", "ENVELOPE", "ENVELOPE-GRANTS"])


class Machine(RuleBasedStateMachine):
    """One example: a service's lives in a world that `world` makes."""

    world: Callable[[], Any]
    listener: Listener
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.trouble = 0
        self.life = Life(type(self).world(), self.listener)

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
    def begin(self, policy: str, rules: bool, baseline: int) -> None:
        """Somebody's rules are there; the service starts."""
        self.life.world.begin(policy, rules)
        self.life.start(self._baseline(baseline))
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(address=st.sampled_from(CLIENTS), lasts=lengths)
    def come(self, address: str, lasts: float) -> None:
        """One client asks."""
        client = self.life.come(address, lasts)
        if not self.life.orders:
            while client.state == "asking":
                self.life.wait(0.005)
            assert client.state != "refused", "refused although the tool works"
        self._step()

    @precondition(lambda self: self.life.clients)
    @rule(which=numbers, how=st.sampled_from(["close", "data", "vanish", "sent away"]))
    def go(self, which: int, how: str) -> None:
        """One client goes, or is sent away."""
        client = self.life.clients[which % len(self.life.clients)]
        if how == "sent away":
            self.life.send_away(client)
        else:
            client.leave(how)
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(moves=st.lists(
        st.tuples(st.booleans(), st.sampled_from(CLIENTS), numbers, lengths), max_size=12))
    def storm(self, moves: list[tuple[bool, str, int, float]]) -> None:
        """Many come and go before anything is answered."""
        for coming, address, which, lasts in moves:
            if coming:
                self.life.come(address, lasts)
            elif self.life.clients:
                self.life.clients[which % len(self.life.clients)].leave("vanish")
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(stay=st.booleans())
    def crowd(self, stay: bool) -> None:
        """So many come at once that their rules are spread over chains, and perhaps go again."""
        crowd = [self.life.come(address, 9000.0) for address in CROWD]
        self._step()
        if not stay:
            for client in crowd:
                client.leave("close")
            self._step()

    @precondition(lambda self: not self.life.orders)
    @rule(orders=st.sampled_from([*QUICK, *SLOW]))
    def break_tool(self, orders: str) -> None:
        """From now on the tool fails."""
        self.life.order(orders)
        self._step()

    @precondition(lambda self: self.life.orders)
    @rule(after=st.sampled_from([0.0, 0.05, 0.3]))
    def repair_tool(self, after: float) -> None:
        """The tool works again: whatever was asked meanwhile comes true or was refused."""
        self.life.wait(after)
        self.life.order("")
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(family=families, which=numbers)
    def interfere(self, family: int, which: int) -> None:
        """Somebody changes what is ours."""
        world, edits = self.life.world, self.life.world.edits
        world.edit(family, edits[which % len(edits)], self.life.baseline)
        world.keep_refusing(self.life.baseline)
        self.life.disturbed = True
        self._step()

    @rule(to=st.sampled_from([0, 3600, -3600]))
    def set_clock(self, to: int) -> None:
        """The time of day changes, and no session's length."""
        self.life.clock_set_by = to
        self._step()

    @rule(family=families, chain=foreign_chains, where=st.sampled_from(["-A", "-I"]))
    def add_foreign(self, family: int, chain: str, where: str) -> None:
        """Somebody adds a rule of their own; what is above us goes below."""
        self.life.world.add(family, chain, where)
        self._step()

    @rule(family=families, chain=foreign_chains, which=numbers)
    def remove_foreign(self, family: int, chain: str, which: int) -> None:
        """Somebody takes one of their rules away."""
        self.life.world.remove(family, chain, which)
        if self.life.up:
            self.life.world.keep_refusing(self.life.baseline)
        self._step()

    @precondition(lambda self: self.life.up)
    @rule(children_too=st.booleans())
    def kill(self, children_too: bool) -> None:
        """The service is killed."""
        self.life.kill(children_too)
        self._step()

    @precondition(lambda self: not self.life.up)
    @rule(baseline=numbers)
    def start(self, baseline: int) -> None:
        """A successor clears what is left and takes over, perhaps with other options."""
        self.life.start(self._baseline(baseline))
        self._step()

    @precondition(lambda self: self.life.up and not self.life.orders)
    @rule()
    def stop(self) -> None:
        """The service stops cleanly."""
        self.life.stop()
        self._step()

    def teardown(self) -> None:
        """The clean stop of whatever is there gives back what others have."""
        try:
            self.life.order("")
            if not self.life.up:
                self.life.start("service")
            self.life.step()
            self.life.stop()
            assert not self.life.world.differences(None, NOBODY, 0.0)
        finally:
            self.life.wipe()


@pytest.fixture(params=ALL_KINDS)
def machine(request, tmp_path):
    """A class of machines over one kind of tool."""
    kind = request.param

    def world() -> Any:
        return NftWorld(tmp_path) if kind == "nftables" else IptablesWorld(tmp_path, kind)

    with Listener() as listener, addresses(*CLIENTS):
        yield type(f"Machine_{kind}", (Machine,), {
            "world": staticmethod(world), "listener": listener, "steps": 0, "TestCase": None,
        })


def test_the_kernel_holds_what_the_model_holds(machine) -> Deferred[None]:
    """Whatever happened, after every step that can be waited for."""
    return in_greenlet(lambda: run(machine))


def run(machine: type[Machine]) -> None:
    """Run examples until there were enough steps, or for as long as asked."""
    end = time.monotonic() + SOAK / len(ALL_KINDS)
    at_once = settings(
        stateful_step_count=STEPS_AT_ONCE, max_examples=STEPS // STEPS_AT_ONCE, deadline=None,
        suppress_health_check=list(HealthCheck), database=None, derandomize=not SOAK,
        phases=[Phase.generate], report_multiple_bugs=False, print_blob=True,
    )
    while machine.steps < STEPS or time.monotonic() < end:
        run_state_machine_as_test(machine, settings=at_once)
    print(f"{machine.steps} steps")
