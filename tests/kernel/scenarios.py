"""Lives of a service that are told step by step: what chance would come to too rarely.

Each is a play with the rules of `statemachine.Machine`, which compare after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.kernel.faultyiptables import POISON4, POISON6
from tests.kernel.modelclient import Client
from tests.kernel.statemachine import CROWD, QUICK, Machine

FOUR, ALSO, SIX = "203.0.113.2", "203.0.113.3", "2001:db8::2"
BRIEF, LONG, LONGER = 1.0, 9000.0, 20000.0
SERVICE, OPERATOR = 0, 2


def come(machine: Machine, address: str, lasts: float = LONG) -> Client:
    """Somebody comes in; returns who."""
    machine.come(address, lasts)
    return machine.life.clients[-1]


def go(machine: Machine, client: Client, how: str = "close") -> None:
    """One goes."""
    machine.go(machine.life.clients.index(client), how)


def leave(machine: Machine, first: int) -> None:
    """All go at once, from the `first` on."""
    machine.storm([(False, "", place, 0.0) for place in range(first, len(machine.life.clients))])


def others(machine: Machine, baseline: int, policy: str = "ACCEPT") -> None:
    """Begin among rules of others."""
    machine.begin(policy, True, baseline)
    for family in machine.life.world.families:
        machine.life.world.furnish(family)
    machine.life.disturbed = True
    machine.life.step()


def interference(machine: Machine, baseline: int) -> None:
    """Everything that others can do to us, with rules of theirs in every chain."""
    others(machine, baseline)
    world = machine.life.world
    for address in (FOUR, SIX):
        come(machine, address)
    for which in range(len(world.edits)):
        for family in world.families:
            world.furnish(family)
            machine.interfere(family, which)


def interference_among_many(machine: Machine) -> None:
    """The same, where grants are spread over chains, and then no more."""
    others(machine, SERVICE)
    staying = come(machine, FOUR)
    machine.crowd(True)
    for which in range(len(machine.life.world.edits)):
        machine.interfere(4, which)
    leave(machine, 1)
    assert machine.life.clients == [staying]


def sharing(machine: Machine) -> None:
    """Sessions of one network: it stays open for the longest, and until the last has left."""
    machine.begin("ACCEPT", False, SERVICE)
    first = [come(machine, address, LONG) for address in (FOUR, SIX)]
    longest = [come(machine, address, LONGER) for address in (FOUR, SIX)]
    brief = [machine.life.come(address, BRIEF) for address in (FOUR, SIX, ALSO, POISON6)]
    machine.life.until(lambda: all(client.state == "out" for client in brief))
    machine.life.step()
    for client in (*longest, *first):
        go(machine, client)


def shortening(machine: Machine) -> None:
    """The longest session of a network leaves while the tool fails: the grant ends earlier then."""
    machine.begin("ACCEPT", False, SERVICE)
    first = [come(machine, address, LONG) for address in (FOUR, SIX)]
    for orders in ("fail", "fail@1", "die-before-echo"):
        longest = [come(machine, address, LONGER) for address in (FOUR, SIX)]
        failed = machine.life.failures()
        machine.break_tool(orders)
        for client in longest:
            go(machine, client)
        machine.life.until(lambda failed=failed: machine.life.failures() > failed)
        machine.repair_tool(0.3)
    for client in first:
        go(machine, client)


def leaving_early(machine: Machine) -> None:
    """Clients that leave before they are answered: alone, and from a network that others are in."""
    machine.begin("ACCEPT", False, SERVICE)
    for _ in range(2):
        inside = len(machine.life.clients)
        machine.storm([
            *((True, address, 0, LONGER) for address in (FOUR, SIX)),
            *((False, "", place, 0.0) for place in (inside, inside + 1)),
        ])
        for address in (FOUR, SIX):
            come(machine, address)


def deaths(machine: Machine, policy: str) -> None:
    """Killed with few and with many inside, and followed by a service with other options."""
    others(machine, SERVICE, policy)
    for baseline in (OPERATOR, SERVICE, SERVICE):
        for address in (FOUR, SIX):
            come(machine, address)
        machine.kill(True)
        machine.start(baseline)
    machine.crowd(True)
    machine.kill(False)
    machine.start(SERVICE)
    come(machine, FOUR)
    machine.stop()


def failing_starts(machine: Machine) -> None:
    """They leave nothing behind: neither family's rules, nor the claim to be the only one."""
    machine.begin("DROP", True, SERVICE)
    for orders in ("fail:ip6tables", "fail", "save-fails", "die-before-commit"):
        machine.stop()
        machine.break_tool(orders)
        machine.start(SERVICE)
        machine.repair_tool(0.0)
        if not machine.life.up:
            machine.start(SERVICE)


def troubles(machine: Machine) -> None:
    """Every failure of the tool, while some come, some stay for longer, and some go."""
    machine.begin("ACCEPT", True, SERVICE)
    for orders in QUICK:
        leaving = [come(machine, address) for address in (POISON4, SIX)]
        staying = come(machine, FOUR)
        machine.break_tool(orders)
        places = [machine.life.clients.index(client) for client in leaving]
        machine.storm([
            (True, FOUR, 0, LONGER), (True, ALSO, 0, LONG), (True, POISON6, 0, LONG),
            *((False, "", place, 0.0) for place in places),
        ])
        came = machine.life.clients[-3:]
        machine.life.until(lambda orders=orders, came=came: (
            # Whoever cannot look does not refuse before it is too late to wait.
            "save" in orders and machine.life.firewall.problems()
        ) or all(client.state != "asking" for client in came))
        machine.repair_tool(0.0)
        assert staying.state == "in"
        leave(machine, 0)


def poison(machine: Machine) -> None:
    """A network that the tool refuses harms nobody else, and operators are told of it."""
    machine.begin("ACCEPT", False, SERVICE)
    machine.break_tool("poison")
    machine.storm([(True, address, 0, LONG) for address in (POISON4, FOUR, POISON6, SIX)])
    machine.repair_tool(0.0)
    leaving = [come(machine, address) for address in (POISON4, POISON6)]
    machine.break_tool("poison")
    for client in leaving:
        go(machine, client)
    machine.storm([(True, address, 0, LONGER) for address in (POISON4, FOUR, POISON6, SIX)])
    machine.life.until(machine.life.firewall.problems)
    machine.repair_tool(0.0)


def lost_answers(machine: Machine) -> None:
    """A tool that dies before it says what it has done has done it: a look tells, and at once."""
    machine.life.world.check_every = 600.0
    machine.begin("ACCEPT", False, SERVICE)
    machine.break_tool("die-before-echo")
    came = [machine.life.come(address, LONG) for address in (FOUR, ALSO, SIX, POISON6)]
    machine.life.until(lambda: all(client.state != "asking" for client in came))
    assert {client.state for client in came} == {"in"}
    machine.repair_tool(0.0)
    for client in came:
        go(machine, client)


def halves(machine: Machine) -> None:
    """A tool that fails from some transaction on shuts nobody out who is inside."""
    machine.life.world.check_every = 600.0
    machine.begin("ACCEPT", False, SERVICE)
    both = [FOUR, SIX]
    for address in both:
        come(machine, address)
    for orders in ("fail@2 save-fails", "fail@3 save-fails"):
        for addresses in (both, CROWD):
            machine.break_tool(orders)
            came = [machine.life.come(address, LONGER) for address in addresses]
            machine.life.until(lambda came=came: machine.life.firewall.problems() or all(
                client.state != "asking" for client in came))
            machine.life.look()
            machine.repair_tool(0.0)
        leave(machine, len(both))


def clocks(machine: Machine) -> None:
    """The time of day is set, while some are inside; whoever comes next shows that it was noticed.
    """
    machine.begin("ACCEPT", False, SERVICE)
    inside = [come(machine, address) for address in (FOUR, SIX)]
    for to in (3600, 0, -3600, 0):
        machine.set_clock(to)
        for address in (ALSO, POISON6):
            go(machine, come(machine, address))
    for client in inside:
        go(machine, client)


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
}
