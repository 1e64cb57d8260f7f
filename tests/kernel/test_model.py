"""After any operations in any order, the real kernel holds what the model says.

Clients come, stay and go through the real `Sessions`, alone and many at once; the tool fails in
every way that `faultyiptables` knows; the service is killed and started again; others change the
rules. Some sequences are written down (`scenarios`), the others are random (`statemachine`).
"""

from __future__ import annotations

import os
import time
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet.defer import Deferred

from envelope.firewall.reconcile import waiters
from tests.kernel.firewallundertest import ALL_KINDS
from tests.kernel.greenlets import in_greenlet
from tests.kernel.iptablesworld import IptablesWorld
from tests.kernel.modelservices import ONE, SEVERAL
from tests.kernel.nftablesmodel import NftWorld
from tests.kernel.scenarios import SCENARIOS
from tests.kernel.servicelife import CLIENTS
from tests.kernel.statemachine import Machine
from tests.kernel.udpprobe import Listener, addresses

pytestmark = pytest.mark.kernel

# Random steps for each kind of tool, half of them in histories that begin with one service and half
# in those that begin with several; `make soak` sets a time (seconds) instead.
STEPS, STEPS_AT_ONCE = 400, 20
SOAK = float(os.environ.get("SOAK_SECONDS", "0"))

# nftables with an operator's own baseline is tested in test_nft_start_stop.
CASES = [(kind, scenario) for kind in ALL_KINDS for scenario in SCENARIOS
         if kind != "nftables" or "operator" not in scenario]


@pytest.fixture(params=ALL_KINDS)
def machine(request, tmp_path, monkeypatch):
    """A state machine class over one kind of tool."""
    kind = request.param

    def world() -> Any:
        return NftWorld(tmp_path) if kind == "nftables" else IptablesWorld(tmp_path, kind)

    # 9 s of real time: the service's clock runs faster, so on a busy machine it would refuse
    # clients that only wait.
    speed = (NftWorld if kind == "nftables" else IptablesWorld).speed
    monkeypatch.setattr(waiters, "ALLOW_WAIT", waiters.ALLOW_WAIT * speed)

    with Listener(*SEVERAL.ports) as listener, addresses(*CLIENTS):
        made = type(f"Machine_{kind}", (Machine,), {
            "world": staticmethod(world), "listener": listener, "steps": 0, "TestCase": None,
        })
        yield made
        print(f"{made.steps} steps")


@pytest.mark.parametrize(("machine", "scenario"), CASES, indirect=["machine"])
def test_the_kernel_holds_what_the_model_holds_in_each_scenario(
    machine, scenario
) -> Deferred[None]:
    """Each scenario holds, with each kind of tool."""

    def play() -> None:
        made = machine()
        try:
            SCENARIOS[scenario](made)
        except BaseException:
            made.life.wipe()
            raise
        made.teardown()

    return in_greenlet(play)


def test_the_kernel_holds_what_the_model_holds(machine) -> Deferred[None]:
    """Random operations; compared after every step that can be waited for."""
    return in_greenlet(lambda: run(machine))


def run(machine: type[Machine]) -> None:
    """Run examples for the given number of steps, or of seconds.

    The suite always runs the same ones.
    """
    end = time.monotonic() + SOAK / len(ALL_KINDS)
    for number in count(1):
        machine.first = SEVERAL if number % 2 else ONE
        at_once = settings(
            stateful_step_count=STEPS_AT_ONCE, max_examples=STEPS // 2 // STEPS_AT_ONCE,
            deadline=None, suppress_health_check=list(HealthCheck), database=None,
            phases=[Phase.generate], report_multiple_bugs=False, print_blob=True,
        )
        run_state_machine_as_test(machine if SOAK else seed(number)(machine), settings=at_once)
        if machine.steps >= STEPS and time.monotonic() >= end:
            return
