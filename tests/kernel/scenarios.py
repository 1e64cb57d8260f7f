"""Sequences of operations, written down because random steps would hit them too rarely.

Each runs operations of `statemachine.Machine`, which compares after every one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.kernel.faultyiptables import POISON4, POISON6
from tests.kernel.scenariosteps import (
    ALSO,
    BRIEF,
    FOUR,
    LONG,
    LONGER,
    OPERATOR,
    SERVICE,
    SIX,
    UNTIL_PUT_OFF,
    admit,
    end,
    failing,
    leave_from,
    others,
)
from tests.kernel.servicescenarios import SERVICE_SCENARIOS
from tests.kernel.statemachine import CROWD, QUICK, Machine


def interference(machine: Machine, baseline: int) -> None:
    """Every change that others can make to our rules, with rules of theirs in every chain."""
    others(machine, baseline)
    world = machine.life.world
    for address in (FOUR, SIX):
        admit(machine, address)
    for which in range(len(world.edits)):
        for family in world.families:
            world.add_everywhere(family)
            machine.change_our_rules(family, which)


def interference_among_many(machine: Machine) -> None:
    """The same while grants are spread over several chains; then all but one client leave."""
    others(machine, SERVICE)
    staying = admit(machine, FOUR)
    machine.connect_crowd(True)
    for which in range(len(machine.life.world.edits)):
        machine.change_our_rules(4, which)
    leave_from(machine, 1)
    assert machine.life.clients == [staying]


def sharing(machine: Machine) -> None:
    """Sessions of one network share a grant: it lasts for the longest, until the last one ends."""
    machine.begin("ACCEPT", False, SERVICE)
    first = [admit(machine, address, LONG) for address in (FOUR, SIX)]
    longest = [admit(machine, address, LONGER) for address in (FOUR, SIX)]
    brief = [machine.life.connect(address, BRIEF) for address in (FOUR, SIX, ALSO, POISON6)]
    machine.life.until(lambda: all(client.state == "out" for client in brief))
    machine.life.step()
    for client in (*longest, *first):
        end(machine, client)


def shortening(machine: Machine) -> None:
    """The longest session of a network ends while the tool fails; the grant's end moves forward."""
    machine.begin("ACCEPT", False, SERVICE)
    first = [admit(machine, address, LONG) for address in (FOUR, SIX)]
    for orders, times in (("fail", UNTIL_PUT_OFF), ("fail@1", 1), ("die-before-echo", 1)):
        longest = [admit(machine, address, LONGER) for address in (FOUR, SIX)]
        machine.break_tool(orders)
        with failing(machine, times):
            for client in longest:
                end(machine, client)
        machine.repair_tool(0.0)
    for client in first:
        end(machine, client)


def leaving_early(machine: Machine) -> None:
    """Clients leave before the answer, the only ones of their network or not."""
    machine.begin("ACCEPT", False, SERVICE)
    for _ in range(2):
        inside = len(machine.life.clients)
        machine.connect_and_leave([
            *((True, address, 0, LONGER) for address in (FOUR, SIX)),
            *((False, "", place, 0.0) for place in (inside, inside + 1)),
        ])
        for address in (FOUR, SIX):
            admit(machine, address)


def deaths(machine: Machine, policy: str) -> None:
    """Killed with few and with many sessions, and followed by a service with other options."""
    others(machine, SERVICE, policy)
    for baseline in (OPERATOR, SERVICE, SERVICE):
        for address in (FOUR, SIX):
            admit(machine, address)
        machine.kill(True)
        machine.start(baseline)
    machine.connect_crowd(True)
    machine.kill(False)
    machine.start(SERVICE)
    admit(machine, FOUR)
    machine.stop()


def failing_starts(machine: Machine) -> None:
    """A failed start leaves neither rules of a family nor the claim to be the only instance."""
    machine.begin("DROP", True, SERVICE)
    for orders in ("fail:ip6tables", "fail", "save-fails", "die-before-commit"):
        machine.stop()
        machine.break_tool(orders)
        machine.start(SERVICE)
        machine.repair_tool(0.0)
        if not machine.life.up:
            machine.start(SERVICE)


def troubles(machine: Machine) -> None:
    """Every failure of the tool, while clients connect, prolong their sessions, and leave."""
    machine.begin("ACCEPT", True, SERVICE)
    for orders in QUICK:
        leaving = [admit(machine, address) for address in (POISON4, SIX)]
        staying = admit(machine, FOUR)
        machine.break_tool(orders)
        places = [machine.life.clients.index(client) for client in leaving]
        machine.connect_and_leave([
            (True, FOUR, 0, LONGER), (True, ALSO, 0, LONG), (True, POISON6, 0, LONG),
            *((False, "", place, 0.0) for place in places),
        ])
        came = machine.life.clients[-3:]
        machine.life.until(lambda orders=orders, came=came: (
            # A service that cannot read the rules refuses a client only when its time is up.
            "save" in orders and machine.life.firewall.problems()
        ) or all(client.state != "asking" for client in came))
        machine.repair_tool(0.0)
        assert staying.state == "in"
        leave_from(machine, 0)


def poison(machine: Machine) -> None:
    """A network that the tool refuses harms no other, and is reported as a problem."""
    machine.begin("ACCEPT", False, SERVICE)
    machine.break_tool("poison")
    # The first is written at once; those after it share a transaction while it takes time.
    everyone = (FOUR, POISON4, ALSO, SIX, POISON6)
    came = [machine.life.connect(address, LONG) for address in everyone]
    machine.life.until(lambda: all(client.state != "asking" for client in came))
    assert [client.state for client in came] == ["in", "refused", "in", "in", "refused"]
    machine.repair_tool(0.0)
    leaving = [admit(machine, address) for address in (POISON4, POISON6)]
    machine.break_tool("poison")
    with failing(machine, UNTIL_PUT_OFF):
        for client in leaving:
            end(machine, client)
    machine.connect_and_leave([(True, address, 0, LONGER) for address in everyone])
    machine.life.until(machine.life.firewall.problems)
    machine.repair_tool(0.0)


def lost_answers(machine: Machine) -> None:
    """The tool applies a change and dies before its answer: a look at the rules follows at once."""
    machine.life.world.check_every = 600.0
    machine.begin("ACCEPT", False, SERVICE)
    machine.break_tool("die-before-echo")
    came = [machine.life.connect(address, LONG) for address in (FOUR, ALSO, SIX, POISON6)]
    machine.life.until(lambda: all(client.state != "asking" for client in came))
    assert {client.state for client in came} == {"in"}
    machine.repair_tool(0.0)
    for client in came:
        end(machine, client)
    # The second transaction of these spreads them over several chains.
    machine.break_tool("die-before-echo@2")
    with failing(machine, 1, machine.life.world.tables[:1]):
        machine.connect_crowd(True)
    machine.repair_tool(0.0)
    leave_from(machine, 0)


def halves(machine: Machine) -> None:
    """A tool that fails from some transaction on closes no session's network."""
    machine.life.world.check_every = 600.0
    machine.begin("ACCEPT", False, SERVICE)
    both = [FOUR, SIX]
    for address in both:
        admit(machine, address)
    for orders in ("fail@2 save-fails", "fail@3 save-fails"):
        for addresses in (both, CROWD):
            machine.break_tool(orders)
            came = [machine.life.connect(address, LONGER) for address in addresses]
            machine.life.until(lambda came=came: machine.life.firewall.problems() or all(
                client.state != "asking" for client in came))
            machine.life.look()
            machine.repair_tool(0.0)
        leave_from(machine, len(both))


def clocks(machine: Machine) -> None:
    """The wall clock is set while sessions are open; the next grant shows that it was noticed."""
    machine.begin("ACCEPT", False, SERVICE)
    inside = [admit(machine, address) for address in (FOUR, SIX)]
    for to in (3600, 0, -3600, 0):
        machine.set_clock(to)
        for address in (ALSO, POISON6):
            end(machine, admit(machine, address))
    machine.set_clock(-3600)
    # The kernel ends this one before its deadline, and its end cannot be written anew.
    brief = machine.life.connect(ALSO, BRIEF)
    machine.life.until(lambda: brief.state != "asking")
    machine.break_tool("fail")
    machine.set_clock(0)
    machine.repair_tool(0.0)
    for client in inside:
        end(machine, client)


SCENARIOS: Final[dict[str, Callable[[Machine], None]]] = {
    "interference": lambda machine: interference(machine, SERVICE),
    "interference with an operator's baseline": lambda machine: interference(machine, OPERATOR),
    "interference among many": interference_among_many,
    "sharing": sharing,
    "shortening": shortening,
    "leaving early": leaving_early,
    "deaths where all was open": lambda machine: deaths(machine, "ACCEPT"),
    "deaths where all was shut": lambda machine: deaths(machine, "DROP"),
    "failing starts": failing_starts,
    "troubles": troubles,
    "poison": poison,
    "lost answers": lost_answers,
    "halves": halves,
    "clocks": clocks,
    **SERVICE_SCENARIOS,
}
